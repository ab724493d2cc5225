"""What the generate function says of itself: its state and the model that it has loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ui.api.errors import foreign, optional_int

FunctionState: TypeAlias = Literal["loading", "ready", "draining", "failed"]
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
        return str(fields.get(name) or "")

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
    )
