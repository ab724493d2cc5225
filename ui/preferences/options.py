"""The sampling options of a visitor: their limits, and how they are kept."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nicegui import app

from ui.api.sampling import SamplingOptions

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class NumberOption:
    """An option that is a number: its limits, and what it does in plain words."""

    name: str
    label: str
    low: float
    high: float
    step: float
    help: str

    @property
    def whole(self) -> bool:
        """Tell whether only whole numbers make sense."""
        return self.step >= 1

    def accept(self, value: object) -> float | int | None:
        """Return a value rounded to what the option takes, or None if it is out of the limits."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return None
        return round(value) if self.whole else round(float(value), 2)


NUMBER_OPTIONS = (
    NumberOption(
        "temperature", "Temperature", 0, 2, 0.05, "Higher is bolder. At 0, always the likeliest."
    ),
    NumberOption(
        "top_p", "Top-p", 0.05, 1, 0.05, "Choose among the likeliest, up to this much certainty."
    ),
    NumberOption(
        "top_k", "Top-k", 0, 200, 1, "Choose among this many tokens. 0 is the most, 1,024."
    ),
    NumberOption(
        "min_p", "Min-p", 0, 1, 0.01, "Leave out what is less likely than this share of the best."
    ),
    NumberOption("max_new_tokens", "Length", 16, 2048, 16, "The longest reply, in tokens."),
)


class OptionsStore:
    """A visitor's options, kept in NiceGUI's user storage; every value is within its limits."""

    def __init__(self) -> None:
        self._store = app.storage.user
        stored = self._store.get("options")
        self.value = _read(stored if isinstance(stored, Mapping) else {})

    def set(self, **changes: Any) -> None:
        """Change some options, and remember them."""
        self.value = replace(self.value, **changes)
        # Kept as text: JavaScript's numbers are not exact above 2**53.
        seed = None if self.value.seed is None else str(self.value.seed)
        self._store["options"] = asdict(self.value) | {"seed": seed}

    def reset(self) -> None:
        """Go back to the defaults."""
        self.value = SamplingOptions()
        self._store.pop("options", None)


def read_seed(text: str | None) -> int | None:
    """Return the seed that was typed, None for an empty field; raises ValueError for no seed."""
    text = (text or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise ValueError(f"A whole number from 0 to {MAX_SEED}")
    return int(text)


def _read(stored: Mapping[str, Any]) -> SamplingOptions:
    values = {item.name: item.accept(stored.get(item.name)) for item in NUMBER_OPTIONS}
    try:
        seed = read_seed(str(stored.get("seed") or ""))
    except ValueError:
        seed = None
    known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return SamplingOptions(**known, seed=seed)
