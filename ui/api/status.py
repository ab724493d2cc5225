"""What the generate function says of itself: its state and the model that it has loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ui.api.errors import foreign, optional_int

FunctionState: TypeAlias = Literal["loading", "ready", "draining", "failed"]
_LONGEST = 500  # characters of a text
STATES: tuple[FunctionState, ...] = get_args(FunctionState)


@dataclass(frozen=True)
class ServedModel:
    """The model that is loaded. Numbers that the function does not give are 0, texts empty."""

    name: str
    architecture: str
    engine: str
    dtype: str
    parameters: int
    size_bytes: int
    max_context: int
    vocab_size: int
    layers: int
    hidden: int
    heads: int
    license: str | None
    # What its card says beyond; empty where it says nothing.
    revision: str
    source: str
    adapter: str
    calibration: str
    vocabulary: str  # what it was cut to
    chat_origin: str  # where its chat template is from
    baked: str  # with which version, by whom and when


@dataclass(frozen=True)
class FunctionStatus:
    """The function's state; no model until it is loaded."""

    state: FunctionState
    model: ServedModel | None


def parse_status(answer: Mapping[str, Any]) -> FunctionStatus:
    """Read the answer of GET /; raises `FunctionError` for a state that is not known."""
    model = answer.get("model")
    given = answer.get("state") or ("ready" if model else "loading")
    state = next((known for known in STATES if known == given), None)
    if state is None:
        raise foreign("generate")
    return FunctionStatus(state, _parse_model(model) if isinstance(model, dict) else None)


def _parse_model(fields: Mapping[str, Any]) -> ServedModel:
    def text(name: str) -> str:
        return _text(fields, name)

    def number(name: str) -> int:
        return optional_int(fields.get(name)) or 0

    return ServedModel(
        name=text("name"),
        architecture=text("architecture"),
        engine=text("engine"),
        dtype=text("dtype"),
        parameters=number("parameters"),
        size_bytes=number("size_bytes"),
        max_context=number("max_context"),
        vocab_size=number("vocab_size"),
        layers=number("layers"),
        hidden=number("hidden"),
        heads=number("heads"),
        license=text("license") or None,
        revision=text("revision"),
        source=text("source"),
        adapter=_adapter(_object(fields, "adapter")),
        calibration=_calibration(_object(fields, "calibration")),
        vocabulary=_vocabulary(_object(fields, "cut")),
        chat_origin=text("chat_origin"),
        baked=_baked(fields),
    )


def _adapter(adapter: Mapping[str, Any]) -> str:
    name, base = _text(adapter, "name"), _text(adapter, "base")
    return name + (f", trained on {base}" if name and base else "")


def _calibration(calibration: Mapping[str, Any]) -> str:
    tokens, source = optional_int(calibration.get("tokens")), _text(calibration, "source")
    if not tokens:
        return ""
    return f"{tokens:,} tokens" + (f" of {source}" if source else "")


def _vocabulary(cut: Mapping[str, Any]) -> str:
    before, after = (optional_int(cut.get(f"entries_{when}")) for when in ("before", "after"))
    if not before or not after:
        return ""
    kept = cut.get("kept")
    names = ", ".join(map(str, kept)) if isinstance(kept, list) else ""
    return f"cut to {after:,} of {before:,} entries" + (f": {names[:_LONGEST]}" if names else "")


def _baked(fields: Mapping[str, Any]) -> str:
    ways = {"baked_with": "with piBLOOM {}", "baked_by": "by {}", "baked_on": "on {}"}
    parts = ((way, _text(fields, name)) for name, way in ways.items())
    return ", ".join(way.format(text) for way, text in parts if text)


def _object(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")[:_LONGEST]
