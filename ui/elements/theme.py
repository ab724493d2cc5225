"""Light, dark, or as the system has it."""

from typing import Literal

from nicegui import app, ui

Theme = Literal["auto", "light", "dark"]
THEMES: dict[Theme, bool | None] = {"auto": None, "light": False, "dark": True}

# Painted before anything else has loaded, so that a dark page does not flash white.
_BACKGROUND = {
    "light": "html{background:#faf7f5;color-scheme:light}",
    "dark": "html{background:#17131a;color-scheme:dark}",
    "auto": "html{background:#faf7f5;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){html{background:#17131a}}",
}


class ThemeChoice:
    """The visitor's theme, kept in NiceGUI's user storage."""

    def __init__(self) -> None:
        self._store = app.storage.user
        stored = self._store.get("theme", "auto")
        self.value: Theme = stored if stored in THEMES else "auto"
        self._mode = ui.dark_mode(THEMES[self.value])

    @property
    def first_style(self) -> str:
        """The CSS for the page's head, before the style sheet is there."""
        return _BACKGROUND[self.value]

    def choose(self, theme: Theme) -> None:
        """Show and remember a theme."""
        self.value = self._store["theme"] = theme
        self._mode.value = THEMES[theme]
