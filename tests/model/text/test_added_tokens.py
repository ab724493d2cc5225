"""Added tokens and post-processors: ids and texts as `transformers` has them, or a refusal."""

import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.errors import ModelError
from model.names import default_model
from model.text.byte_symbols import SYMBOLS
from model.text.tokenizer import StreamDecoder, Tokenizer
from model.text.vocabulary import compile_json

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
CONFIG = {"model_type": "bloom", "vocab_size": 512, "hidden_size": 64, "n_layer": 1, "n_head": 1}


def token(content: str, **flags: Any) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"content": content} | plain | flags


def typed(content: str, **flags: Any) -> dict[str, Any]:
    return {"__type": "AddedToken"} | token(content, **flags)


def tokenizer_json(*added: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A tokenizer of single bytes and three merges, with BLOOM's special tokens."""
    data: dict[str, Any] = json.loads((default_model() / "tokenizer.json").read_text())
    words = ["ab", "Ġa", "abab"]
    vocab = {text: id_ for id_, text in enumerate([*SPECIAL, *sorted(SYMBOLS), *words])}
    data["model"] |= {"vocab": vocab, "merges": [["a", "b"], ["Ġ", "a"], ["ab", "ab"]]}
    data["added_tokens"] += [{"id": len(vocab) + at} | each for at, each in enumerate(added)]
    return data | changes


def written(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in ({"config": CONFIG, "tokenizer": tokenizer_json()} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


def texts(contents: list[str]) -> list[str]:
    """Texts that hold the tokens in all surroundings, whole and torn."""
    around = ["", " ", "a", "ab", "é", "_", "1", ".", "\n\t", "\u0301", "\u3000", "你", "-"]
    found = ["", "ab abab", " a b"]
    for content in contents:
        found += [f"{left}{content}{right}" for left, right in product(around, around)]
        found += [content[:-1], content[1:], content * 3, f"x {content} {content}y {content}"]
    found += [f"{a} {b}{a}b{b}" for a, b in product(contents, contents)]
    return found


def check_same(folder: Path, contents: list[str]) -> None:
    ours = Tokenizer.open(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert ours.size == len(theirs)
    contents = list(dict.fromkeys([*contents, *theirs.get_added_vocab()]))
    for text in texts([each for each in contents if each][-8:]):
        for added in (True, False):
            ids = ours.ids(text, add_special_tokens=added)
            assert ids == theirs(text, add_special_tokens=added).input_ids, (text, added)
            assert ids == ours.encode(text, add_special_tokens=added).ids
        shown = theirs.decode(ids, skip_special_tokens=True)
        assert ours.decode(ids) == shown, text
    every = [*range(4), *range(255, ours.size)] * 2
    assert ours.decode(every) == theirs.decode(every, skip_special_tokens=True)
    decoder = StreamDecoder(ours)
    pushed = "".join(map(decoder.push, [*every, *ours.ids("!", add_special_tokens=False)]))
    assert pushed == theirs.decode(every, skip_special_tokens=True) + "!"


CHAT = ["<|im_start|>", "<|im_end|>"]
DECODER = {str(id_): token(text, special=True) for id_, text in enumerate(SPECIAL)}
MORE = {"263": token("<|im_start|>", special=True), "264": token("<|im_end|>", special=True)}
# What stands in which file; the name tells the case.
FOLDERS: dict[str, dict[str, Any]] = {
    "only tokenizer.json": {},
    "special ones in tokenizer.json": {
        "tokenizer": tokenizer_json(*(token(each, special=True) for each in CHAT))
    },
    "others in tokenizer.json": {"tokenizer": tokenizer_json(*map(token, CHAT))},
    "in added_tokens_decoder": {"tokenizer_config": {"added_tokens_decoder": DECODER | MORE}},
    "an empty added_tokens_decoder": {"tokenizer_config": {"added_tokens_decoder": {}}},
    "of other numbers in added_tokens_decoder": {
        "tokenizer_config": {"added_tokens_decoder": {"900": token("<b>"), "700": token("<a>")}}
    },
    "numbers in added_tokens_decoder are sorted as numbers": {
        "tokenizer_config": {"added_tokens_decoder": {"1000": token("<b>"), "999": token("<a>")}}
    },
    "the same one several times": {
        "tokenizer": tokenizer_json(token("<a>", special=True), token("<b>", normalized=True)),
        "tokenizer_config": {
            "added_tokens_decoder": {
                "263": token("<a>", normalized=True),
                "264": token("<b>", lstrip=True),
                "265": token("<b>", rstrip=True, normalized=True, special=True),
                "266": token("a>", single_word=True, normalized=True),
            }
        },
    },
    "with every flag in added_tokens_decoder": {
        "tokenizer_config": {
            "added_tokens_decoder": {
                "263": token("<l>", lstrip=True),
                "264": token("<r>", rstrip=True, special=True),
                "265": token("<w>", single_word=True, normalized=True),
                "266": token("wo", single_word=True),
            }
        }
    },
    "flags changed by added_tokens_decoder": {
        "tokenizer": tokenizer_json(token("<x>"), token("<y>", special=True)),
        "tokenizer_config": {
            "added_tokens_decoder": {
                "263": token("<x>", lstrip=True, special=True),
                "264": token("<y>", rstrip=True, normalized=True),
                "1": token("<s>", rstrip=True, special=True),
            }
        },
    },
    "in added_tokens.json": {"added_tokens": {"<b>": 264, "<a>": 263}},
    "in added_tokens.json, special by name": {
        "added_tokens": {"<|im_end|>": 263, "<x>": 264},
        "special_tokens_map": {"eos_token": "<|im_end|>"},
    },
    "in added_tokens.json, special by the configuration": {
        "added_tokens": {"<|im_end|>": 263, "<x>": 264, "<y>": 265},
        "tokenizer_config": {"eos_token": "<|im_end|>", "additional_special_tokens": ["<x>"]},
    },
    "added_tokens.json beside added_tokens_decoder": {
        "added_tokens": {"<b>": 264, "<a>": 263},
        "tokenizer_config": {"added_tokens_decoder": DECODER},
    },
    "added_tokens.json with what the vocabulary has": {"added_tokens": {"abab": 262, "<a>": 263}},
    "a number of added_tokens.json that another one has": {"added_tokens": {"<a>": 2, "<b>": 263}},
    "named in special_tokens_map.json": {
        "special_tokens_map": {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "unk_token": None}
    },
    "tokens in special_tokens_map.json": {
        "special_tokens_map": {
            "eos_token": token("<|im_end|>", lstrip=True),
            "mask_token": token("<mask>", lstrip=True, normalized=True),
        }
    },
    "further ones in special_tokens_map.json": {
        "special_tokens_map": {"additional_special_tokens": CHAT}
    },
    "further ones in both": {
        "special_tokens_map": {"additional_special_tokens": CHAT, "extra_special_tokens": ["<e>"]},
        "tokenizer_config": {"extra_special_tokens": ["<f>"]},
    },
    "special_tokens_map.json beside added_tokens_decoder": {
        "special_tokens_map": {"eos_token": "<|im_end|>"},
        "tokenizer_config": {"added_tokens_decoder": DECODER},
    },
    "named in the configuration": {
        "tokenizer_config": {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    },
    "typed in the configuration": {
        "tokenizer_config": {"eos_token": typed("<|im_end|>", rstrip=True), "pad_token": None}
    },
    "named, and known as another": {
        "tokenizer": tokenizer_json(token("<|im_end|>")),
        "tokenizer_config": {"eos_token": "<|im_end|>"},
    },
    "named, and known as another in added_tokens_decoder": {
        "tokenizer_config": {
            "eos_token": "<|im_end|>",
            "added_tokens_decoder": {"263": token("<|im_end|>", normalized=True)},
        }
    },
    "additional_special_tokens": {"tokenizer_config": {"additional_special_tokens": CHAT}},
    "additional_special_tokens, known as others": {
        "tokenizer": tokenizer_json(*map(token, CHAT)),
        "tokenizer_config": {"additional_special_tokens": CHAT},
    },
    "additional and extra": {
        "tokenizer_config": {"additional_special_tokens": ["<a>"], "extra_special_tokens": ["<b>"]}
    },
    "typed extra_special_tokens": {
        "tokenizer_config": {"extra_special_tokens": [typed("<e>", lstrip=True), "<f>"]}
    },
    "extra_special_tokens with names": {
        "tokenizer_config": {"extra_special_tokens": {"image_token": "<image>", "b": "<b>"}}
    },
    "a name of its own": {"tokenizer_config": {"image_token": "<image>", "eos_token": "</s>"}},
    "a typed name of its own": {"tokenizer_config": {"image_token": typed("<image>", rstrip=True)}},
    "the padding of tokenizer.json": {
        "tokenizer": tokenizer_json(
            padding={
                "strategy": "BatchLongest",
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 3,
                "pad_type_id": 0,
                "pad_token": "<new pad>",
            }
        )
    },
    "truncation": {
        "tokenizer": tokenizer_json(
            truncation={
                "direction": "Right",
                "max_length": 4,
                "strategy": "LongestFirst",
                "stride": 0,
            }
        )
    },
    "split_special_tokens": {
        "tokenizer": tokenizer_json(token("<|x|>", special=True), token("|>")),
        "tokenizer_config": {"split_special_tokens": True},
    },
    "letters of the byte alphabet": {"tokenizer": tokenizer_json(token("é"), token("Ġx"))},
    "a space within": {"tokenizer": tokenizer_json(token("a b"), token(" c"), token("d "))},
    "not ASCII": {"tokenizer": tokenizer_json(token("你好"), token("🙂", special=True))},
    "one within another": {
        "tokenizer": tokenizer_json(
            token("<a"), token("<a>"), token("a>", normalized=True), token("<a>b", single_word=True)
        )
    },
    "one that is turned down hides what begins in it": {
        "tokenizer": tokenizer_json(token("xyz", single_word=True), token("yz"), token("z1"))
    },
    "both kinds of the same beginning": {
        "tokenizer": tokenizer_json(
            token("<n>", normalized=True, lstrip=True, rstrip=True), token("<n>1"), token("n>")
        )
    },
    "a token of the vocabulary is added": {
        "tokenizer": tokenizer_json(token("abab", special=True))
    },
    "add_bos_token": {"tokenizer_config": {"add_bos_token": True, "bos_token": "<s>"}},
    "add_prefix_space": {"tokenizer_config": {"add_prefix_space": True}},
    "cleaning up": {"tokenizer_config": {"clean_up_tokenization_spaces": True}},
    "the class of a Llama": {"tokenizer_config": {"tokenizer_class": "LlamaTokenizer"}},
    "the class of a BLOOM": {"tokenizer_config": {"tokenizer_class": "BloomTokenizerFast"}},
    "the class of none": {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizer"}},
    "a class in config.json": {"config": CONFIG | {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "no added token at all": {"tokenizer": tokenizer_json() | {"added_tokens": []}},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_tokens_of_every_file_are_as_transformers_has_them(tmp_path: Path, name: str) -> None:
    check_same(written(tmp_path / "model", FOLDERS[name]), [*CHAT, "<x>", "<a>", "<b>", "</s>"])


def template(single: list[Any], **special: list[int]) -> dict[str, Any]:
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if piece == "$A"
        else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in single
    ]
    return {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": [str(id_) for id_ in ids]}
            for name, ids in {"<s>": [1], "</s>": [2], **special}.items()
        },
    }


BYTE_LEVEL: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
BERT = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
ROBERTA = BERT | {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": True}
PROCESSORS: dict[str, Any] = {
    "none": None,
    "byte level": BYTE_LEVEL,
    "bos": template(["<s>", "$A"]),
    "eos": template(["$A", "</s>"]),
    "both": template(["<s>", "$A", "</s>"]),
    "twice": template(["<s>", "<s>", "$A", "</s>"]),
    "several ids": template(["x", "$A"], x=[1, 65, 2]),
    "BERT": BERT,
    "RoBERTa": ROBERTA,
    "a sequence": {"type": "Sequence", "processors": [BYTE_LEVEL, template(["<s>", "$A"])]},
    "a sequence of two": {
        "type": "Sequence",
        "processors": [template(["<s>", "$A"]), template(["$A", "</s>"])],
    },
    "a sequence within": {
        "type": "Sequence",
        "processors": [{"type": "Sequence", "processors": [BERT]}, BYTE_LEVEL],
    },
    "a sequence of a template, BERT and a template": {
        "type": "Sequence",
        "processors": [template(["<s>", "$A"]), BERT, template(["$A", "</s>"])],
    },
    "a sequence of a template and RoBERTa": {
        "type": "Sequence",
        "processors": [template(["<s>", "$A"]), ROBERTA],
    },
    "a sequence of a plain template and BERT": {
        "type": "Sequence",
        "processors": [template(["$A"]), BERT, template(["<s>", "$A", "</s>"])],
    },
    "an empty sequence": {"type": "Sequence", "processors": []},
    "plain": template(["$A"]),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_prompt_begins_and_ends_as_transformers_has_it(tmp_path: Path, name: str) -> None:
    files = {"tokenizer": tokenizer_json(post_processor=PROCESSORS[name])}
    check_same(written(tmp_path / "model", files), ["</s>", "<s>"])


def test_what_is_put_around_a_prompt_touches_no_character(tmp_path: Path) -> None:
    files = {"tokenizer": tokenizer_json(post_processor=PROCESSORS["both"])}
    encoding = Tokenizer.open(written(tmp_path / "model", files)).encode("ab")
    assert encoding.ids == [1, 260, 2]
    assert encoding.pieces == ["<s>", "ab", "</s>"]
    assert encoding.offsets == [(0, 0), (0, 2), (0, 0)]


def random_tokens(rng: random.Random) -> Iterator[dict[str, Any]]:
    alphabet = ["<", ">", "a", "b", "1", "_", "é", "-", "你", "\u0301", "\u200d"]
    for _ in range(rng.randint(1, 8)):
        content = "".join(rng.choices(alphabet, k=rng.randint(1, 3)))
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        yield token(content, **{name: rng.random() < 0.4 for name in names})


def trimming(kind: dict[str, Any], *, prefix: bool) -> dict[str, Any]:
    return kind | {"trim_offsets": True, "add_prefix_space": prefix}


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("kind", ["byte level", "RoBERTa", "a sequence", "none"])
def test_offsets_are_trimmed_as_the_library_trims_them(
    tmp_path: Path, kind: str, prefix: bool
) -> None:
    processor: Any = {
        "byte level": trimming(BYTE_LEVEL, prefix=prefix),
        "RoBERTa": trimming(ROBERTA, prefix=prefix),
        "a sequence": {
            "type": "Sequence",
            "processors": [template(["<s>", "$A"]), trimming(BYTE_LEVEL, prefix=prefix)],
        },
        "none": BYTE_LEVEL | {"trim_offsets": False},
    }[kind]
    added = [
        token(" c "),
        token("<l>", lstrip=True),
        token("ĠxĠ"),
        token("\u3000\u3000"),
        token("\u3000x"),
        token(" \u3000y"),
    ]
    data = tokenizer_json(*added, post_processor=processor)
    data["model"]["vocab"] |= {"ĠĠ": len(data["model"]["vocab"])}
    data["model"]["merges"].append(["Ġ", "Ġ"])
    for at, each in enumerate(data["added_tokens"][4:]):
        each["id"] = len(data["model"]["vocab"]) + at
    folder = written(tmp_path / "model", {"tokenizer": data})
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    rng = random.Random(1)
    contents = [each["content"] for each in added]
    parts = [" ", "  ", " a", "ab", "\n", "\u3000", "\xa0", "é", *contents]
    for _ in range(500):
        text = "".join(rng.choices(parts, k=rng.randint(0, 10)))
        expected = theirs(text, return_offsets_mapping=True)
        found = ours.encode(text)
        assert (found.ids, found.offsets) == (expected.input_ids, expected.offset_mapping), text


def test_an_older_tokenizer_is_refused_with_a_sentence() -> None:
    compiled = bytearray(compile_json(tokenizer_json()))
    compiled[4] = 1
    with pytest.raises(ModelError, match="of another version; bake it again"):
        Tokenizer.from_bytes(bytes(compiled))


def test_texts_of_special_tokens_are_known() -> None:
    added = [token("é", special=True), token("<x>"), token("<y>", special=True)]
    tokenizer = Tokenizer.from_bytes(compile_json(tokenizer_json(*added)))
    names = {text: id_ for id_, text in enumerate(SPECIAL)}
    assert tokenizer.hidden == names | {"é": 169, "<y>": 264}


@pytest.mark.parametrize("seed", range(100))
def test_random_tokens_with_all_flags_are_found_as_the_library_finds_them(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    added = list({each["content"]: each for each in random_tokens(rng)}.values())
    decoder = {str(263 + at): each for at, each in enumerate(random_tokens(rng))}
    files: dict[str, Any] = {"tokenizer": tokenizer_json(*added)}
    if seed % 2:
        files["tokenizer_config"] = {"added_tokens_decoder": decoder}
    folder = written(tmp_path / "model", files)
    ours, theirs = Tokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    contents = [each["content"] for each in (*added, *decoder.values())]
    parts = [*contents, *" \n\u3000ab1_.é你\u0301", "  ", "\t\u2003"]
    for _ in range(300):
        text = "".join(rng.choices(parts, k=rng.randint(1, 12)))
        expected = theirs(text, return_offsets_mapping=True)
        found = ours.encode(text)
        assert found.ids == expected.input_ids, (text, added)
        assert found.offsets == expected.offset_mapping, (text, added)
        assert ours.decode(found.ids) == theirs.decode(found.ids, skip_special_tokens=True)


def test_every_character_is_part_of_a_word_as_the_library_has_it() -> None:
    data = json.dumps(tokenizer_json(token("<X>", single_word=True)))
    theirs = tokenizers.Tokenizer.from_str(data)
    ours = Tokenizer.from_bytes(compile_json(json.loads(data)))
    # Nothing is assigned from 0x40000 on but a few in plane 14.
    codes = [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000), 0xF0000, 0x10FFFF]
    characters = list(map(chr, codes))
    for at in range(0, len(characters), 512):
        text = " ".join(f"{each}<X> <X>{each}" for each in characters[at : at + 512])
        assert ours.ids(text) == theirs.encode(text).ids, hex(at)


def test_many_tokens_that_begin_alike_are_found_in_a_moment(tmp_path: Path) -> None:
    added = [token(f"<extra_id_{at}>") for at in range(2000)]
    folder = written(tmp_path / "model", {"tokenizer": tokenizer_json(*added)})
    ours = Tokenizer.open(folder)
    assert ours.ids("<extra_id_7><extra_id_77>") == [270, 340]
    text = "<extra_id_" * 50_000
    assert ours.decode(ours.ids(text)) == text


# What is refused rather than done, and the words that name it.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"tokenizer_config": {"tokenizer_class": "GPT2Tokenizer"}}, "GPT2Tokenizer"),
    "another class in config.json": (
        {"config": CONFIG | {"tokenizer_class": "Qwen2Tokenizer"}},
        "Qwen2Tokenizer",
    ),
    "code of its own": (
        {"tokenizer_config": {"auto_map": {"AutoTokenizer": ["x.T", None]}}},
        "auto_map",
    ),
    "versions of the file": (
        {"tokenizer_config": {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}},
        "fast_tokenizer_files",
    ),
    "an untyped table": ({"tokenizer_config": {"eos_token": {"content": "</s>"}}}, "eos_token"),
    "a number": ({"tokenizer_config": {"eos_token": 2}}, "eos_token"),
    "a list of numbers": (
        {"tokenizer_config": {"extra_special_tokens": [1]}},
        "extra_special_tokens",
    ),
    "texts in added_tokens_decoder": (
        {"tokenizer_config": {"added_tokens_decoder": {"263": "<x>"}}},
        "tokenizer_config.json",
    ),
    "a list as added_tokens_decoder": (
        {"tokenizer_config": {"added_tokens_decoder": []}},
        "added_tokens_decoder",
    ),
    "no number in added_tokens_decoder": (
        {"tokenizer_config": {"added_tokens_decoder": {"x": token("<x>")}}},
        "tokenizer_config.json",
    ),
    "a text for a flag": (
        {"tokenizer_config": {"added_tokens_decoder": {"263": token("<x>", lstrip="yes")}}},
        "added token",
    ),
    "a list in added_tokens.json": ({"added_tokens": []}, "added_tokens.json"),
    "texts in added_tokens.json": ({"added_tokens": {"<a>": "x", "<b>": 3}}, "added_tokens.json"),
    "a list in special_tokens_map.json": ({"special_tokens_map": []}, "special_tokens_map.json"),
    "corrupting": (
        {
            "tokenizer_config": {
                "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True
            }
        },
        "clean_up_tokenization_spaces",
    ),
    "white space taken twice": (
        {"tokenizer": tokenizer_json(token("<r>", rstrip=True), token("  "))},
        "rstrip",
    ),
    "a token that is too long": ({"tokenizer": tokenizer_json(token("x" * 5000))}, "5000 bytes"),
    "an id is missing": (
        {"tokenizer": tokenizer_json() | {"added_tokens": [token("<x>")]}},
        r"model/tokenizer\.json",
    ),
    "no text as an added token": (
        {"tokenizer": tokenizer_json() | {"added_tokens": ["<x>"]}},
        r"model/tokenizer\.json",
    ),
    "a flag is missing": (
        {"tokenizer": tokenizer_json({"content": "<x>", "special": True})},
        "lacks single_word",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_by_name(tmp_path: Path, name: str) -> None:
    files, words = REFUSED[name]
    with pytest.raises(ModelError, match=words) as caught:
        Tokenizer.open(written(tmp_path / "model", files))
    assert str(caught.value).count(str(tmp_path)) == 1  # the file is named, and once


def changed(path: str, value: Any) -> dict[str, Any]:
    data = tokenizer_json()
    place: Any = data
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return data


NORMALIZERS = ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents", "ByteLevel"]
KINDS: dict[str, tuple[str, Any]] = {
    **{name: ("normalizer", {"type": name}) for name in NORMALIZERS},
    "Strip": ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}),
    "Prepend": ("normalizer", {"type": "Prepend", "prepend": "x"}),
    "Replace": ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
    "BertNormalizer": ("normalizer", {"type": "BertNormalizer"}),
    "Precompiled": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}),
    "Sequence of none": ("normalizer", {"type": "Sequence", "normalizers": []}),
    **{
        f"pre_tokenizer {name}": ("pre_tokenizer", {"type": name})
        for name in (
            *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Metaspace", "Whitespace"),
            *("WhitespaceSplit", "Punctuation", "Digits", "UnicodeScripts", "FixedLength"),
        )
    },
    "no pre_tokenizer": ("pre_tokenizer", None),
    "another pattern": ("pre_tokenizer/pretokenizers/0/pattern", {"Regex": " ?[a-z]+"}),
    "a plain pattern": ("pre_tokenizer/pretokenizers/0/pattern", {"String": " "}),
    **{
        f"behavior {name}": ("pre_tokenizer/pretokenizers/0/behavior", name)
        for name in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
    },
    "invert": ("pre_tokenizer/pretokenizers/0/invert", True),
    "add_prefix_space": ("pre_tokenizer/pretokenizers/1/add_prefix_space", True),
    "use_regex": ("pre_tokenizer/pretokenizers/1/use_regex", True),
    "a further step": ("pre_tokenizer/pretokenizers", [{"type": "Digits"}] * 3),
    **{
        f"decoder {name}": ("decoder", {"type": name})
        for name in (
            *("BPEDecoder", "WordPiece", "Metaspace", "CTC", "ByteFallback", "Fuse", "Strip"),
            *("Replace", "Sequence"),
        )
    },
    "no decoder": ("decoder", None),
    **{f"model {name}": ("model/type", name) for name in ("WordPiece", "WordLevel", "Unigram")},
    "dropout": ("model/dropout", 0.1),
    "byte_fallback": ("model/byte_fallback", True),
    "continuing_subword_prefix": ("model/continuing_subword_prefix", "##"),
    "end_of_word_suffix": ("model/end_of_word_suffix", "</w>"),
    "ignore_merges": ("model/ignore_merges", True),
    "another post_processor": ("post_processor", {"type": "Unknown"}),
    "the text twice": ("post_processor", template(["$A", "<s>", "$A"])),
    "trimmed twice": (
        "post_processor",
        {"type": "Sequence", "processors": [ROBERTA, BYTE_LEVEL]},
    ),
    "three parts to a template": (
        "post_processor",
        {"type": "Sequence", "processors": [template(["<s>", "$A", "</s>"]), template(["$A"])]},
    ),
    "the text never": ("post_processor", template(["<s>"])),
    "an id beyond the vocabulary": ("post_processor", template(["x", "$A"], x=[10**6])),
    "a huge id": ("model/vocab/<huge>", 10**30),
    "a negative id": ("model/vocab/<negative>", -1),
    "an id twice": ("model/vocab/<twice>", 5),
    "an id left out": ("model/vocab/<later>", 10**6),
    "no id": ("model/vocab/<none>", "5"),
}


@pytest.mark.parametrize("name", KINDS)
def test_another_kind_of_tokenizer_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path, value = KINDS[name]
    folder = written(tmp_path / "model", {"tokenizer": changed(path, value)})
    with pytest.raises(ModelError, match=r"tokenizer\.json") as caught:
        Tokenizer.open(folder)
    assert "is not a tokenizer" not in str(caught.value)


def test_settings_that_change_nothing_are_taken(tmp_path: Path) -> None:
    for path, value in (
        ("model/dropout", 0.0),
        ("model/fuse_unk", True),
        ("model/unk_token", "<unk>"),
        ("model/continuing_subword_prefix", ""),
        ("model/end_of_word_suffix", ""),
        ("decoder/add_prefix_space", False),
        ("pre_tokenizer/pretokenizers/1/trim_offsets", False),
    ):
        files = {"tokenizer": changed(path, value)}
        check_same(written(tmp_path / "model", files), ["<s>", "ab"])


def test_a_tokenizer_that_transformers_wrote_is_read_the_same(tmp_path: Path) -> None:
    saved = PreTrainedTokenizerFast.from_pretrained(default_model())
    saved.add_special_tokens({"eos_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]})
    saved.add_tokens([tokenizers.AddedToken("<think>", lstrip=True, rstrip=True)])
    saved.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    check_same(tmp_path, [*CHAT, "<think>"])
