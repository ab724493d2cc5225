"""Text to ids and back, and never half a character."""

import contextlib
import ctypes
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelError
from model.names import default_model
from model.text.tokenizer import END, StreamDecoder, Tokenizer
from model.text.vocabulary import compile_vocabulary
from tests.fakes import byte_tokenizer

TOKENIZER = Tokenizer.open(default_model())
COMPILED = compile_vocabulary(default_model())
PLAIN = tokenizers.Tokenizer.from_file(str(default_model() / "tokenizer.json"))
NO_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@settings(max_examples=300, deadline=None)
@given(NO_SURROGATES)
def test_decoding_gives_the_text_back(text: str) -> None:
    if "</s>" not in text and "<" not in text:
        assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(4, TOKENIZER.size - 1), max_size=30))
def test_decoding_any_ids_equals_the_library(ids: list[int]) -> None:
    assert TOKENIZER.decode(ids) == PLAIN.decode(ids, skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(NO_SURROGATES)
def test_offsets_name_the_characters_of_each_piece(text: str) -> None:
    encoding = TOKENIZER.encode(text)
    assert len(encoding.ids) == len(encoding.pieces) == len(encoding.offsets)
    for piece, (start, end) in zip(encoding.pieces, encoding.offsets, strict=True):
        if piece.isascii() and "\\x" not in piece:
            assert text[start:end] == piece


@settings(max_examples=200, deadline=None)
@given(NO_SURROGATES)
def test_streaming_gives_whole_characters_that_add_up(text: str) -> None:
    tokenizer = byte_tokenizer()
    decoder = StreamDecoder(tokenizer)
    parts = [decoder.push(id_) for id_ in tokenizer.ids(text)]
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts) or "\ufffd" in text


def test_an_incomplete_character_is_held_back() -> None:
    tokenizer = byte_tokenizer()
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(id_) for id_ in tokenizer.ids("你a")] == ["", "", "你", "a"]


def test_special_tokens_have_blooms_ids_and_are_not_shown() -> None:
    assert TOKENIZER.ids("<unk><s></s><pad>") == [0, 1, 2, 3]
    assert TOKENIZER.decode([0, 1, 2, 3]) == ""
    assert StreamDecoder(TOKENIZER).push(END) == ""


def test_words_are_cut_as_bloom_cuts_them() -> None:
    text = "ab (cd). ef|gh,ij"
    pre = PLAIN.pre_tokenizer
    assert pre is not None
    pieces = [text[start:end] for _, (start, end) in pre.pre_tokenize_str(text)]
    assert pieces == ["ab", " (", "cd", ").", " ef", "|", "gh", ",", "ij"]


def test_a_long_text_is_split_without_the_interpreters_lock() -> None:
    begun, ended, interval = threading.Event(), threading.Event(), sys.getswitchinterval()

    def split() -> None:
        begun.set()
        TOKENIZER.ids(" " * 2**20)
        ended.set()

    sys.setswitchinterval(60)  # so that the other thread runs when the lock is given up, and not
    try:  # because its turn has come
        thread = threading.Thread(target=split)
        thread.start()
        assert begun.wait(20)
        assert not ended.is_set()
    finally:
        sys.setswitchinterval(interval)
    thread.join(20)
    assert ended.is_set()


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        TOKENIZER.encode("\ud800")
    with pytest.raises(ValueError, match="surrogate"):
        TOKENIZER.ids("\ud800")


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=str(TOKENIZER.size)):
        TOKENIZER.decode([TOKENIZER.size])


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer.json is missing"):
        Tokenizer.open(tmp_path)
    whole = (default_model() / "tokenizer.json").read_text()
    for damaged in ("", "{}", whole[: len(whole) // 2]):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(ModelError, match="tokenizer.json"):
            Tokenizer.open(tmp_path)


def test_how_a_file_was_last_used_does_not_cut_or_fill_up_a_prompt(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_file(str(default_model() / "tokenizer.json"))
    inner.enable_truncation(8)
    inner.enable_padding(length=12, pad_id=3, pad_token="<pad>")
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path)
    for text in ("hi", "hello world " * 50):
        assert tokenizer.ids(text) == TOKENIZER.ids(text)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    shutil.copy(default_model() / "tokenizer.json", tmp_path)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["added_tokens"][2]["content"] = "<|endoftext|>"
    data["model"]["vocab"]["<|endoftext|>"] = data["model"]["vocab"].pop("</s>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match="special tokens"):
        Tokenizer.open(tmp_path)


# Pieces of which most of what can go wrong is made: white space of every kind, the marks that cut,
# special tokens whole and torn, characters of one to four bytes, some that combine.
PARTS = st.sampled_from(
    [
        *" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2000\u200a\u200b",
        *"\u2028\u2029\u202f\u205f\u3000\ufeff",
        *"()|.,!?…。，、।۔،[]^",
        *("</s>", "<s>", "<unk>", "<pad>", "<", "</", "<s", "s>", "</s"),
        *(
            "the",
            " the",
            "ing",
            "Hello",
            "  ",
            "你好",
            "नमस्ते",
            "مرحبا",
            "é",
            "e\u0301",
            "🙂",
            "👨\u200d👩",
        ),
        *"\x00\x7f",
    ]
)
TEXTS = st.one_of(NO_SURROGATES, st.lists(PARTS, max_size=40).map("".join))


def check_equal(text: str) -> None:
    ours, theirs = TOKENIZER.encode(text), PLAIN.encode(text)
    assert ours.ids == theirs.ids == TOKENIZER.ids(text)
    assert ours.offsets == theirs.offsets


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
def test_every_text_is_split_as_the_library_splits_it(text: str) -> None:
    check_equal(text)


def test_every_character_is_split_as_the_library_splits_it() -> None:
    characters = [chr(code) for code in range(0x3100) if not 0xD800 <= code < 0xE000]
    characters += [
        chr(code) for code in range(0x3100, 0x110000, 251) if not 0xD800 <= code < 0xE000
    ]
    for at in range(0, len(characters), 50):
        check_equal("".join(f"a{each} {each}{each}b " for each in characters[at : at + 50]))


@pytest.mark.parametrize("text", ["a" * 300_000, "ab" * 150_000, " " * 200_000, "</s>" * 50_000])
def test_long_inputs_are_split_alike(text: str) -> None:
    check_equal(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_do_no_harm(data: bytes) -> None:
    ids = (ctypes.c_uint32 * max(1, len(data)))()
    count = TOKENIZER._encode(data, ids, None, None)
    assert 0 <= count <= len(data)
    assert b"".join(TOKENIZER.bytes_of(id_) for id_ in ids[:count]) == data


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=40))
def test_a_damaged_tokenizer_does_no_harm(at: int, patch: bytes) -> None:
    compiled = bytearray(COMPILED)
    start = at % len(compiled)
    compiled[start : start + len(patch)] = patch[: len(compiled) - start]
    try:
        damaged = Tokenizer.from_bytes(bytes(compiled))
    except ModelError:
        return
    for id_ in damaged.ids("Hello, 你好! </s> the end"):
        if id_ < damaged.size:
            with contextlib.suppress(ValueError):
                damaged.bytes_of(id_)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {"Regex": " ?[a-z]+"}),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True),
        (("normalizer",), {"type": "NFC"}),
        (("decoder",), None),
        (("model", "type"), "WordPiece"),
        (("model", "byte_fallback"), True),
        (("model", "dropout"), 0.1),
    ],
)
def test_another_way_of_splitting_is_refused(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    data = json.loads((default_model() / "tokenizer.json").read_text())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path)
