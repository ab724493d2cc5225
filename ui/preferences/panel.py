"""The settings panel: how replies are sampled, and the theme."""

from functools import partial
from typing import get_args

from nicegui import ui

from ui.elements.basic import Button, Text
from ui.elements.theme import Theme, ThemeChoice
from ui.preferences.options import NUMBER_OPTIONS, NumberOption, OptionsStore, read_seed


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
            for option in NUMBER_OPTIONS:
                self._build_number(option)
            self._build_seed()
            self._build_theme()
            Button("Reset to defaults", "undo", self._reset).classes("button-line").mark("reset")

    def open(self) -> None:
        """Show the panel."""
        self.dialog.open()

    def use_seed(self, seed: int) -> None:
        """Put a seed into the field, so that the next replies use it."""
        self._seed.value = str(seed)

    def _build_number(self, option: NumberOption) -> None:
        value = getattr(self._options.value, option.name)
        with ui.element("div").classes("setting"):
            label = Text(option.label, "label").classes("setting-name")
            number = ui.number(
                value=value,
                min=option.low,
                max=option.high,
                step=option.step,
                precision=0 if option.whole else 2,
                on_change=lambda e: self._set(option, e.value),
            )
            number.props(f'outlined dense hide-bottom-space aria-label="{option.label}"')
            number.classes("field field-number").mark(option.name)
            number.on("blur", partial(self._refill, option))
            label.props["for"] = number.html_id
            slider = ui.slider(
                min=option.low,
                max=option.high,
                step=option.step,
                value=value,
                on_change=lambda e: self._set(option, e.value),
            )
            slider.props(f'aria-label="{option.label}"')
            Text(option.help, "p").classes("setting-help")
        self._numbers[option.name], self._sliders[option.name] = number, slider

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

    def _set(self, option: NumberOption, value: object) -> None:
        accepted = option.accept(value)
        if accepted is None:
            return  # it may still be incomplete
        if getattr(self._options.value, option.name) != accepted:
            self._options.set(**{option.name: accepted})
        self._sliders[option.name].value = accepted
        self._numbers[option.name].value = accepted

    def _refill(self, option: NumberOption) -> None:
        """Put the value in force back into a field that was left empty."""
        if option.accept(self._numbers[option.name].value) is None:
            self._numbers[option.name].value = getattr(self._options.value, option.name)

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
        for option in NUMBER_OPTIONS:
            value = getattr(self._options.value, option.name)
            self._sliders[option.name].value = self._numbers[option.name].value = value
        self._seed.value = ""


def _seed_problem(text: str | None) -> str | None:
    try:
        read_seed(text)
    except ValueError as error:
        return str(error)
    return None
