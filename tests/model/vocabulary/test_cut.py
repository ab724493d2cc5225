"""Cut vocabularies: the same tokens for what is kept, and every text whole."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelError
from model.text.tokenizer import Tokenizer
from model.vocabulary import cut as cutting
from model.vocabulary.cut import VocabularyCut, cut_vocabulary
from model.vocabulary.samples import samples
from model.vocabulary.scripts import SHARED, UNKNOWN, characters_of, script_of
from model.vocabulary.tokens import has_letter
from tests.model.vocabulary.vocabularies import SOURCES, cut_json, tokenizer, vocabulary

SCRIPTS = [("Latin",), ("Han",), ("Arabic", "Devanagari"), ("Bengali", "Latin")]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(
        st.sampled_from(
            [
                *(sample.text[:40] for sample in samples()),
                *("<s>", "</s>", "<|im_end|>", "नमस्ते", "<think>", "中", " ", "\n", "1", ".", "🙂"),
            ]
        ),
        max_size=6,
    ).map("".join),
    st.text("abcd ", max_size=40),
)


def cut_of(name: str, scripts: tuple[str, ...]) -> VocabularyCut:
    return cut_vocabulary(tokenizer(name), scripts=scripts, always=[2])


CUTS = [
    (name, scripts)
    for name in SOURCES
    for scripts in SCRIPTS
    if name != "tangled" and ("Bengali" not in scripts or name == "trained")
]
CACHE = {(name, scripts): cut_of(name, scripts) for name, scripts in CUTS}
every_cut = pytest.mark.parametrize(("name", "scripts"), CUTS)


@every_cut
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_every_text_has_the_ids_that_the_library_gives_it(
    name: str, scripts: tuple[str, ...], text: str
) -> None:
    cut = CACHE[name, scripts]
    theirs = library(name, scripts).encode(text, add_special_tokens=False)
    ours = cut.tokenizer.encode(text, add_special_tokens=False)
    assert ours.ids == theirs.ids
    assert ours.offsets == theirs.offsets


LIBRARY: dict[tuple[str, tuple[str, ...]], tokenizers.Tokenizer] = {}


def library(name: str, scripts: tuple[str, ...]) -> tokenizers.Tokenizer:
    key = name, scripts
    if key not in LIBRARY:
        data = cut_json(vocabulary(name), CACHE[key].ids)
        LIBRARY[key] = tokenizers.Tokenizer.from_str(json.dumps(data))
    return LIBRARY[key]


@every_cut
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_every_text_comes_back_whole(name: str, scripts: tuple[str, ...], text: str) -> None:
    cut = CACHE[name, scripts].tokenizer
    ids = cut.ids(text, add_special_tokens=False)
    assert b"".join(map(cut.bytes_of, ids)).decode() == text


def test_all_bytes_and_special_and_added_tokens_are_kept() -> None:
    for key, cut in CACHE.items():
        former = tokenizer(key[0])
        kept = {former.bytes_of(id_) for id_ in cut.ids}
        assert kept >= {bytes([byte]) for byte in range(256)}
        added = vocabulary(key[0])["added_tokens"]
        assert {each["id"] for each in added} <= set(cut.ids)
        assert cut.tokenizer.hidden == {
            text: cut.new_ids[id_] for text, id_ in former.hidden.items()
        }


@every_cut
@settings(max_examples=50, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_a_text_of_the_kept_scripts_has_the_same_tokens(
    name: str, scripts: tuple[str, ...], chance: random.Random
) -> None:
    cut, former = CACHE[name, scripts], tokenizer(name)
    parts = [sample.text for sample in samples() if script_of(sample.text[0]) in scripts]
    letters = [each for script in scripts for each in LETTERS[script]]
    text = "".join(
        chance.choice(
            [
                chance.choice(parts)[: chance.randrange(60)],
                "".join(chance.choices(letters, k=4)),
                "".join(chance.choices(LETTERS["Common"], k=2)),
                " ",
            ]
        )
        for _ in range(6)
    )
    text = "".join(each for each in text if script_of(each) in {*scripts, *SHARED})
    ids = former.ids(text, add_special_tokens=False)
    assert set(ids) <= set(cut.ids)
    assert cut.tokenizer.ids(text, add_special_tokens=False) == [cut.new_ids[id_] for id_ in ids]


LETTERS = {
    script: list(characters_of(script))
    for script in {"Common", *(script for scripts in SCRIPTS for script in scripts)}
}


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_text_whose_tokens_are_all_kept_has_the_same_ones(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    former = tokenizer(name)
    texts = data.draw(st.lists(TEXTS.filter(has_letters(former)), min_size=1, max_size=4))
    path = tmp_path_factory.getbasetemp() / f"{name}.txt"
    path.write_text("\n".join(texts))
    cut = cut_vocabulary(former, texts=[path])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(cut_json(vocabulary(name), cut.ids)))
    for text in [*texts, "\n".join(texts)]:
        before = former.encode(text, add_special_tokens=False)
        if set(before.ids) <= set(cut.ids):
            after = cut.tokenizer.encode(text, add_special_tokens=False)
            assert after.ids == [cut.new_ids[id_] for id_ in before.ids]
            assert (after.pieces, after.offsets) == (before.pieces, before.offsets)
            assert theirs.encode(text, add_special_tokens=False).ids == after.ids
    whole = "\n".join(texts)
    assert set(former.ids(whole, add_special_tokens=False)) <= set(cut.ids)


def has_letters(former: Tokenizer) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        ids = former.ids(text, add_special_tokens=False)
        return any(has_letter(former.bytes_of(id_)) for id_ in ids)

    return check


@pytest.mark.parametrize("name", SOURCES)
def test_every_way_to_a_kept_token_is_kept(name: str, tmp_path: Path) -> None:
    former, model = tokenizer(name), vocabulary(name)["model"]
    (tmp_path / "words.txt").write_text("abcabc dcba a b c d naturally")
    cut = cut_vocabulary(former, texts=[tmp_path / "words.txt"])
    ways = 0
    for left, right in model["merges"]:
        if model["vocab"][left + right] in cut.new_ids:
            assert {model["vocab"][left], model["vocab"][right]} <= cut.new_ids.keys()
            ways += 1
    results = [left + right for left, right in model["merges"]]
    assert ways
    assert (len(set(results)) < len(results)) == (name == "tangled"), "there by several ways"


def test_both_options_add_up(tmp_path: Path) -> None:
    former = tokenizer("trained")
    path = tmp_path / "notes.txt"
    path.write_text("人人生而自由")
    one, other = cut_of("trained", ("Latin",)), cut_vocabulary(former, texts=[path])
    both = cut_vocabulary(former, scripts=["Latin"], texts=[path])
    assert set(both.ids) == set(one.ids) | set(other.ids)
    assert both.named == ("Latin", "notes.txt")


def test_a_text_is_read_in_parts_that_end_with_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = tokenizer("demo")
    path = tmp_path / "long.txt"
    text = "".join(
        sample.text + chance for sample, chance in zip(samples(), "\n \t" * 15, strict=True)
    )
    path.write_text(text)
    whole = cut_vocabulary(former, texts=[path])
    for size in (7, 64, 1000):
        monkeypatch.setattr(cutting, "_BLOCK", size)
        assert cut_vocabulary(former, texts=[path]).ids == whole.ids


def test_a_cut_that_keeps_everything_changes_nothing() -> None:
    former = tokenizer("demo")
    cut = cut_vocabulary(former, scripts=["Latin"], always=range(former.size))
    assert cut.tokenizer.compiled == former.compiled


@pytest.mark.parametrize("text", ["", " \n", "1, 2, 3!", "🙂"])
def test_texts_without_a_letter_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(ModelError, match=r"nothing would be kept .*empty\.txt"):
        cut_vocabulary(tokenizer("demo"), texts=[tmp_path / "empty.txt"])


@pytest.mark.parametrize("scripts", [("Runic",), ("Common",), ("Common", "Inherited")])
def test_scripts_of_which_the_vocabulary_has_no_letter_are_refused(
    scripts: tuple[str, ...],
) -> None:
    with pytest.raises(ModelError, match="nothing would be kept"):
        cut_vocabulary(tokenizer("demo"), scripts=scripts)


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"abc \xff\xfe")
    with pytest.raises(ModelError, match="binary is not UTF-8 text"):
        cut_vocabulary(tokenizer("demo"), texts=[path])
    with pytest.raises(ModelError, match="missing cannot be read: No such file"):
        cut_vocabulary(tokenizer("demo"), texts=[tmp_path / "missing"])


def test_samples_are_of_known_scripts() -> None:
    assert len(samples()) == 45
    assert not [s.code for s in samples() if UNKNOWN in {script_of(each) for each in s.text}]
