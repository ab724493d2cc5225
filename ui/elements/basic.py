"""Words, icons and buttons."""

from collections.abc import Callable
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from ui.elements.icons import icon


class Text(TextElement):
    """Words in an HTML tag of one's choice."""

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
    """A plain button with an icon, and words beside it or only for a screen reader (`bare`)."""

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
