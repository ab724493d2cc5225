"""What every page has: its head, its theme, its header, and the small elements it is made of."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from nicegui import app, ui
from nicegui.elements.mixins.text_element import TextElement

from ui.icons import icon

STATIC = Path(__file__).with_name("static")
ASSETS = ("style.css", "chat.js", "logo.svg")
LOGO = (STATIC / "logo.svg").read_text(encoding="utf-8")

Theme = Literal["auto", "light", "dark"]
THEMES: dict[Theme, bool | None] = {"auto": None, "light": False, "dark": True}

# Painted before anything else has loaded, so that a dark page does not flash white.
_BACKGROUND = {
    "light": "html{background:#faf7f5;color-scheme:light}",
    "dark": "html{background:#17131a;color-scheme:dark}",
    "auto": "html{background:#faf7f5;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){html{background:#17131a}}",
}
VIEWPORT = (
    "width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content"
)


class Text(TextElement):
    """Words in a tag of one's choice."""

    def __init__(self, text: str = "", tag: str = "span") -> None:
        super().__init__(tag=tag, text=text)


class Icon(ui.html):
    """A drawn icon; `show` changes it."""

    def __init__(self, name: str) -> None:
        super().__init__(icon(name), sanitize=False, tag="span")
        self.classes("icon-box")

    def show(self, name: str) -> None:
        """Draw another icon."""
        self.set_content(icon(name))


class Button(ui.element):
    """A plain button with an icon, and words beside it or only for a screen reader."""

    def __init__(
        self,
        label: str,
        icon_name: str | None = None,
        on_click: Callable[[], Any] | None = None,
        *,
        bare: bool = False,
    ) -> None:
        super().__init__("button")
        self.props["type"] = "button"
        self.classes("button")
        with self:
            if icon_name:
                self.icon = Icon(icon_name)
            if bare:
                self.classes("button-bare")
                self.props["aria-label"] = self.props["title"] = label
            else:
                self.label = Text(label)
        if on_click is not None:
            self.on("click", lambda _: on_click(), args=[])


def dress(title: str) -> "ThemeChoice":
    """Give the page its head, its style and the visitor's theme."""
    theme = ThemeChoice()
    ui.page_title(title)
    ui.add_head_html(
        f"<style>{_BACKGROUND[theme.value]}</style>"
        f'<link rel="stylesheet" href="/assets/{asset_version()}/style.css">'
        f'<script defer src="/assets/{asset_version()}/chat.js"></script>'
    )
    return theme


def asset_version() -> str:
    """Return a name for the present state of the assets, so that a browser may keep them."""
    stamp = 0
    for name in ASSETS:
        stamp = zlib.crc32((STATIC / name).read_bytes(), stamp)
    return f"{stamp:08x}"


class ThemeChoice:
    """Light, dark, or as the system has it; remembered for the visitor."""

    def __init__(self) -> None:
        self._store = app.storage.user
        stored = self._store.get("theme", "auto")
        self.value: Theme = stored if stored in THEMES else "auto"
        self._mode = ui.dark_mode(THEMES[self.value])

    def choose(self, theme: Theme) -> None:
        """Show and remember a theme."""
        self.value = self._store["theme"] = theme
        self._mode.value = THEMES[theme]


def brand() -> None:
    """Show the logo and the name, as a link to the chat."""
    with ui.element("a").classes("brand").props('href="/" aria-label="piBLOOM, the chat"'):
        ui.html(LOGO, sanitize=False, tag="span").classes("brand-logo").props('aria-hidden="true"')
        ui.html("pi<b>BLOOM</b>", sanitize=False, tag="span").classes("brand-name")
