"""A model's card: what is written is read again, and a foreign one can do no harm."""

import json
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model.baked.bake import Signature, bake, bake_tokenizer_only
from model.baked.cache import baked_copy
from model.baked.card import AdapterCard, CalibrationCard, CutCard, ModelCard
from model.baked.file import BakedModel
from model.baked.source import card_of, model_card
from model.checkpoint.folder import Checkpoint
from model.load import load
from model.version import version

FULL = ModelCard(
    name="bloomz-560m+mine",
    revision="0123456789abcdef0123456789abcdef01234567",
    license="bigscience-bloom-rail-1.0",
    source="F16 in safetensors",
    adapter=AdapterCard(name="mine", base="bigscience/bloomz-560m", rank=8),
    calibration=CalibrationCard(
        tokens=4096, source="its own text", error_before=0.02, error_after=0.01
    ),
    cut=CutCard(kept=["Latin", "Han"], entries_before=250_680, entries_after=46_145),
    chat_origin="the preset instruction",
    baked_by="Ada Lovelace",
    baked_with="0.1.0",
    baked_on="2026-12-01T00:00:00Z",
)
# Values as a hostile or damaged file may have them, in place of any text, number or object.
HOSTILE: dict[str, Any] = {
    "null": None,
    "a number": 5,
    "a huge number": 10**400,
    "not a number": math.nan,
    "infinite": -math.inf,
    "true": True,
    "a list": [1, [2]],
    "an object": {"name": {"name": []}},
    "endless": "x" * 1_000_000,
    "lines": "a\nb\r\n\u2028c\x1b[31m\x00\ud800",
}


def test_what_is_written_is_read_again() -> None:
    assert all(getattr(FULL, item.name) for item in fields(FULL)), "a field is not tried"
    text = json.dumps(FULL.as_description(), ensure_ascii=False)
    assert ModelCard.read(json.loads(text)) == FULL


def test_a_description_of_a_former_version_is_read() -> None:
    former = {"name": "bloom-560m+mine", "adapter": "mine", "license": None, "bits": 8}
    card = ModelCard.read(former)
    assert card.adapter == AdapterCard(name="mine", base=None, rank=None)
    assert card == ModelCard(name="bloom-560m+mine", adapter=card.adapter)
    assert ModelCard.read({}) == ModelCard(name="model")


def places(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*path, name) for name in value]
    for name, inner in value.items():
        if isinstance(inner, dict):
            found += places(inner, (*path, name))
    return found


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", places(FULL.as_description()), ids=".".join)
def test_a_foreign_value_is_bounded_or_not_stated(place: tuple[str, ...], kind: str) -> None:
    description = FULL.as_description()
    inner = description
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = HOSTILE[kind]
    text = msgspec.json.encode(ModelCard.read(description)).decode()  # as GET / sends it
    assert len(text) < 2000
    assert text.isprintable()
    assert "null" not in json.loads(text)["name"]
    assert ModelCard.read(json.loads(text)) == ModelCard.read(description)


def test_a_list_of_scripts_is_bounded() -> None:
    cut = {"kept": ["y" * 500] * 5000, "entries_before": 2, "entries_after": 1}
    card = ModelCard.read({"cut": cut})
    assert card.cut is not None
    assert len(card.cut.kept) == 200
    assert {len(name) for name in card.cut.kept} == {300}


def test_the_same_input_bakes_to_the_same_bytes(random_bloom: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(random_bloom)
    signature = Signature("Ada Lovelace", "2026-12-01T00:00:00Z")
    for at, given in enumerate((Signature(), Signature(), signature, signature)):
        bake(checkpoint, tmp_path / f"{at}.bloom", signature=given)
    plain, again, signed, signed_again = (
        (tmp_path / f"{at}.bloom").read_bytes() for at in range(4)
    )
    assert plain == again
    assert signed == signed_again
    card = model_card(tmp_path / "2.bloom")
    assert (card.baked_by, card.baked_on) == (signature.by, signature.on)
    assert card.baked_with == version()
    bare = model_card(tmp_path / "0.bloom")
    assert (bare.baked_by, bare.baked_on) == (None, None), "nobody is named who did not ask for it"


@pytest.fixture
def snapshot(demo: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "models--bigscience--bloomz-560m" / "snapshots" / ("c" * 40)
    return Path(shutil.copytree(demo, folder))


def test_a_pulled_model_tells_its_revision(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = baked_copy(snapshot)
    for card in (card_of(BakedModel(first)), model_card(snapshot)):
        assert (card.name, card.revision, card.license) == ("bloomz-560m", "c" * 40, "apache-2.0")
    other = shutil.copytree(snapshot, snapshot.with_name("d" * 40))
    second = baked_copy(Path(other))
    assert second != first, "the same files of another revision have a card of their own"
    assert card_of(BakedModel(second)).revision == "d" * 40
    assert baked_copy(snapshot) == first


def test_a_tokenizer_keeps_the_card_of_its_model(snapshot: Path, tmp_path: Path) -> None:
    whole, alone, of_folder = (tmp_path / f"{name}.bloom" for name in "abc")
    bake(Checkpoint.open(snapshot), whole, signature=Signature("Ada"))
    bake_tokenizer_only(whole, alone, Signature("Bob"))
    assert model_card(alone) == replace(model_card(whole), source=None, chat_origin=None)
    bake_tokenizer_only(snapshot, of_folder, Signature("Ada"))
    assert of_folder.read_bytes() == alone.read_bytes()
    bake_tokenizer_only(snapshot, of_folder, Signature("Bob"))
    card = model_card(of_folder)
    assert (card.name, card.revision, card.license) == ("bloomz-560m", "c" * 40, "apache-2.0")
    assert card.baked_by == "Bob"


def test_a_loaded_model_shows_its_card(snapshot: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bloom"
    bake(Checkpoint.open(snapshot), path, signature=Signature("Ada"))
    model = load(path, threads=1)
    try:
        assert {item.name: getattr(model.info, item.name) for item in fields(ModelCard)} == vars(
            model_card(path)
        )
    finally:
        model.close()
