"""The settings panel: how replies are sampled, and the theme."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

from nicegui import app, ui

from ui.client import Options
from ui.frame import Button, Text, Theme, ThemeChoice

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Knob:
    """A number that can be set: its limits, and what it does in plain words."""

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
        """Return a value as this knob takes it, or None if it is out of its limits."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return None
        return round(value) if self.whole else round(float(value), 2)


KNOBS = (
    Knob("temperature", "Temperature", 0, 2, 0.05, "Higher is bolder. At 0, always the likeliest."),
    Knob("top_p", "Top-p", 0.05, 1, 0.05, "Choose among the likeliest, up to this much certainty."),
    Knob("top_k", "Top-k", 0, 200, 1, "Choose among this many tokens. 0 is the most, 1,024."),
    Knob(
        "min_p", "Min-p", 0, 1, 0.01, "Leave out what is less likely than this share of the best."
    ),
    Knob("max_new_tokens", "Length", 16, 2048, 16, "The longest reply, in tokens."),
)


class OptionsStore:
    """A visitor's options, kept in NiceGUI's user storage; never a value out of its limits."""

    def __init__(self) -> None:
        self._store = app.storage.user
        stored = self._store.get("options")
        self.value = _read(stored if isinstance(stored, Mapping) else {})

    def set(self, **changes: Any) -> None:
        """Change some options, and remember them."""
        self.value = replace(self.value, **changes)
        # A seed may be larger than a browser's numbers; as text it stays what it is.
        seed = None if self.value.seed is None else str(self.value.seed)
        self._store["options"] = asdict(self.value) | {"seed": seed}

    def reset(self) -> None:
        """Go back to the defaults."""
        self.value = Options()
        self._store.pop("options", None)


def read_seed(text: str | None) -> int | None:
    """Return the seed that was typed, None if the field is empty; raises ValueError otherwise."""
    text = (text or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise ValueError(f"A whole number from 0 to {MAX_SEED}")
    return int(text)


def _read(stored: Mapping[str, Any]) -> Options:
    values = {k.name: k.accept(stored.get(k.name)) for k in KNOBS}
    try:
        seed = read_seed(str(stored.get("seed") or ""))
    except ValueError:
        seed = None
    known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return Options(**known, seed=seed)


class SettingsPanel:
    """A panel at the right edge; Escape or a click beside it closes it."""

    def __init__(self, options: OptionsStore, theme: ThemeChoice) -> None:
        self._options, self._theme = options, theme
        self._sliders: dict[str, ui.slider] = {}
        self._numbers: dict[str, ui.number] = {}
        self._themes: dict[Theme, Button] = {}
        self.dialog = ui.dialog().props('position="right" full-height aria-label="Settings"')
        with self.dialog, ui.element("div").classes("sheet"):
            with ui.element("div").classes("sheet-head"):
                Text("Settings", "h2")
                Button("Close settings", "close", self.dialog.close, bare=True)
            for knob in KNOBS:
                self._build_knob(knob)
            self._build_seed()
            self._build_theme()
            Button("Reset to defaults", "undo", self._reset).classes("button-line").mark("reset")

    def open(self) -> None:
        """Show the panel."""
        self.dialog.open()

    def use_seed(self, seed: int) -> None:
        """Put a seed into the field, so that the next replies use it."""
        self._seed.value = str(seed)

    def _build_knob(self, knob: Knob) -> None:
        value = getattr(self._options.value, knob.name)
        with ui.element("div").classes("setting"):
            label = Text(knob.label, "label").classes("setting-name")
            number = ui.number(
                value=value,
                min=knob.low,
                max=knob.high,
                step=knob.step,
                precision=0 if knob.whole else 2,
                on_change=lambda e: self._set(knob, e.value),
            )
            number.props(f'outlined dense hide-bottom-space aria-label="{knob.label}"')
            number.classes("field field-number").mark(knob.name)
            number.on("blur", partial(self._settle, knob))
            label.props["for"] = number.html_id
            slider = ui.slider(
                min=knob.low,
                max=knob.high,
                step=knob.step,
                value=value,
                on_change=lambda e: self._set(knob, e.value),
            )
            slider.props(f'aria-label="{knob.label}"')
            Text(knob.help, "p").classes("setting-help")
        self._numbers[knob.name], self._sliders[knob.name] = number, slider

    def _build_seed(self) -> None:
        seed = self._options.value.seed
        with ui.element("div").classes("setting"):
            label = Text("Seed", "label").classes("setting-name")
            self._seed = ui.input(
                placeholder="random",
                value="" if seed is None else str(seed),
                validation=_seed_problem,
                on_change=lambda e: self._set_seed(e.value),
            )
            self._seed.props(
                'outlined dense hide-bottom-space inputmode="numeric" aria-label="Seed"'
            )
            self._seed.classes("field field-wide").mark("seed")
            label.props["for"] = self._seed.html_id
            Text("The same seed and settings give the same reply to the same chat.", "p").classes(
                "setting-help"
            )

    def _build_theme(self) -> None:
        with ui.element("div").classes("setting"):
            Text("Appearance", "span").classes("setting-name")
            group = ui.element("div").classes("segments")
            group.props('role="group" aria-label="Appearance"')
            with group:
                for theme in get_args(Theme):
                    button = Button(theme.capitalize(), on_click=partial(self._choose, theme))
                    self._themes[theme] = button.mark(f"theme-{theme}")
        self._choose(self._theme.value, remember=False)

    def _set(self, knob: Knob, value: object) -> None:
        accepted = knob.accept(value)
        if accepted is None:
            return  # still being typed
        if getattr(self._options.value, knob.name) != accepted:
            self._options.set(**{knob.name: accepted})
        self._sliders[knob.name].value = accepted
        self._numbers[knob.name].value = accepted

    def _settle(self, knob: Knob) -> None:
        """Put back what is in force, when a field is left empty."""
        if knob.accept(self._numbers[knob.name].value) is None:
            self._numbers[knob.name].value = getattr(self._options.value, knob.name)

    def _set_seed(self, text: str | None) -> None:
        try:
            self._options.set(seed=read_seed(text))
        except ValueError:
            return  # the field says so

    def _choose(self, theme: Theme, *, remember: bool = True) -> None:
        for name, button in self._themes.items():
            button.props["aria-pressed"] = "true" if name == theme else "false"
        if remember:
            self._theme.choose(theme)

    def _reset(self) -> None:
        self._options.reset()
        for knob in KNOBS:
            value = getattr(self._options.value, knob.name)
            self._sliders[knob.name].value = self._numbers[knob.name].value = value
        self._seed.value = ""


def _seed_problem(text: str | None) -> str | None:
    try:
        read_seed(text)
    except ValueError as error:
        return str(error)
    return None
