"""Text to ids and back, and never half a character."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelError
from model.loader import default_model
from model.tokenizer import END, StreamDecoder, Tokenizer
from tests.fakes import byte_tokenizer

TOKENIZER = Tokenizer.open(default_model())
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
