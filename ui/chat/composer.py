"""Where a message is written: the input, its buttons, and a line with counts below."""

from collections.abc import Callable

from nicegui import ui

from ui.elements.basic import Button, Text
from ui.limits import MESSAGE_CHARACTERS

# Enter while Chinese or Japanese is composed picks a candidate; it does not send.
_EMIT_ON_ENTER = """(event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    if (event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    emit(event.target.value);
}"""


class Composer:
    """The input with its buttons; `on_send` and `on_change` are called with the text."""

    def __init__(
        self,
        *,
        on_send: Callable[[str], None],
        on_stop: Callable[[], None],
        on_change: Callable[[str], None],
    ) -> None:
        self._on_send, self._on_stop, self._on_change = on_send, on_stop, on_change
        with ui.element("div").classes("dock column-text"):
            with ui.element("div").classes("composer"):
                self._build_input()
                self._build_buttons()
            with ui.element("div").classes("under"):
                self._build_counts()

    @property
    def text(self) -> str:
        """What is written in the input."""
        return self._input.value or ""

    @text.setter
    def text(self, text: str) -> None:
        self._input.value = text

    def focus(self) -> None:
        """Put the cursor into the input."""
        self._input.run_method("focus")

    def show_running(self, running: bool) -> None:
        """Offer to stop the running reply, or to send a message."""
        self._send.visible, self._stop.visible = not running, running

    def show_note(self, text: str) -> None:
        """Show how long the draft is, or why it cannot be sent."""
        self._note.text = text

    def show_fill(self, used: int, limit: int) -> None:
        """Show how many of the `limit` tokens that the model can read are used; none for 0."""
        self._meter.visible = bool(limit)
        if limit:
            used = min(used, limit)
            self._meter_text.text = f"Chat {used:,} / {limit:,}"
            self._meter.props["title"] = "Tokens of this chat, of those that the model can read"
            self._meter_bar.style(replace=f"width: {100 * used / limit:.1f}%")

    def _build_input(self) -> None:
        self._input = ui.textarea(
            placeholder="Message piBLOOM", on_change=lambda e: self._on_change(e.value or "")
        )
        self._input.props(
            'autogrow borderless dir="auto" rows="1" autofocus enterkeyhint="send"'
            ' aria-label="Your message" autocomplete="off"'
            f' data-limit="{MESSAGE_CHARACTERS}"'
        ).mark("input")
        self._input.on(
            "keydown",
            lambda e: self._on_send(e.args if isinstance(e.args, str) else self.text),
            js_handler=_EMIT_ON_ENTER,
        )

    def _build_buttons(self) -> None:
        self._send = Button("Send", "send", lambda: self._on_send(self.text), bare=True)
        self._send.classes("button-main").mark("send")
        self._stop = Button("Stop", "stop", self._on_stop, bare=True)
        self._stop.classes("button-stop").mark("stop")
        self._stop.visible = False

    def _build_counts(self) -> None:
        self._note = Text("").mark("draft-tokens")
        self._meter = ui.element("span").classes("meter").mark("context")
        with self._meter:
            self._meter_text = Text("")
            with ui.element("div").classes("meter-bar").props('aria-hidden="true"'):
                self._meter_bar = ui.element("div")
        self._meter.visible = False
        Text("Enter sends · Shift+Enter starts a new line").classes("hint")
