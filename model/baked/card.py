"""A model's card: what it is, where it came from, and what was done to it when it was baked.

It is written into `model.bloom` as a part of its description, and shown by `pibloom inspect`, by
both functions and by the chat. A file may be anybody's: what its card says is bounded, and what is
not of the right kind counts as not stated. Files of former versions lack some of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model.files import shortened

_LONGEST = 300  # characters of a text
_MOST = 200  # entries of a list
_TEXTS = (
    "revision",
    "license",
    "source",
    "chat_origin",
    "baked_by",
    "baked_with",
    "baked_on",
)


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """A LoRA adapter that was merged into the weights."""

    name: str
    base: str | None  # the model that it was trained on, as it says itself
    rank: int | None  # the largest of its matrices


@dataclass(frozen=True, kw_only=True)
class CalibrationCard:
    """A calibration: weights were rounded by what they do to the activations of a text."""

    tokens: int
    source: str | None  # what the tokens were of
    error_before: float | None  # of the outputs, relative, with plain rounding
    error_after: float | None


@dataclass(frozen=True, kw_only=True)
class CutCard:
    """A cut: entries that the user does not need were left out of the vocabulary."""

    kept: list[str]  # the scripts, and the texts whose tokens were kept
    entries_before: int
    entries_after: int


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model says of itself; None: not stated, or, for what was done to it, not done."""

    name: str
    revision: str | None = None  # the commit on the hub
    license: str | None = None
    source: str | None = None  # the checkpoint's types and files, as in "F16 in safetensors"
    adapter: AdapterCard | None = None
    calibration: CalibrationCard | None = None
    cut: CutCard | None = None
    chat_origin: str | None = None  # where its chat template is from
    baked_by: str | None = None  # who baked it, where they wanted to be named
    baked_with: str | None = None  # the version of piBLOOM
    baked_on: str | None = None  # the date that SOURCE_DATE_EPOCH gave; else baking has none

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> "ModelCard":
        """Take the card out of a description, bounded; a name that it lacks is "model"."""
        adapter, calibration, cut = map(description.get, ("adapter", "calibration", "cut"))
        return cls(
            name=_text(description.get("name")) or "model",
            adapter=_adapter({"name": adapter} if isinstance(adapter, str) else adapter),
            calibration=_calibration(calibration),
            cut=_cut(cut),
            **{name: _text(description.get(name)) for name in _TEXTS},
        )

    def as_description(self) -> dict[str, Any]:
        """Return the card as it is written, which `read` reads."""
        return asdict(self)


def _adapter(given: object) -> AdapterCard | None:
    if not isinstance(given, dict) or not (name := _text(given.get("name"))):
        return None
    return AdapterCard(name=name, base=_text(given.get("base")), rank=_count(given.get("rank")))


def _calibration(given: object) -> CalibrationCard | None:
    if not isinstance(given, dict) or (tokens := _count(given.get("tokens"))) is None:
        return None
    return CalibrationCard(
        tokens=tokens,
        source=_text(given.get("source")),
        error_before=_number(given.get("error_before")),
        error_after=_number(given.get("error_after")),
    )


def _cut(given: object) -> CutCard | None:
    if not isinstance(given, dict):
        return None
    before, after = (_count(given.get(f"entries_{when}")) for when in ("before", "after"))
    if before is None or after is None:
        return None
    kept = given.get("kept")
    texts = map(_text, kept[:_MOST]) if isinstance(kept, list) else ()
    return CutCard(kept=list(filter(None, texts)), entries_before=before, entries_after=after)


def _text(given: object) -> str | None:
    """Return a text as one line of at most `_LONGEST` characters that can be printed."""
    if not isinstance(given, str):
        return None
    line = " ".join(given[: 4 * _LONGEST].split())
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
    return shortened(line, _LONGEST) or None


def _count(given: object) -> int | None:
    return given if type(given) is int and 0 <= given < 2**53 else None


def _number(given: object) -> float | None:
    # json.loads takes NaN and Infinity, which no other JSON may hold.
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return float(given) if abs(given) < 1e300 else None
