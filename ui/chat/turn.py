"""One question and its reply on the page, updated in place while the reply streams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from ui import format as numbers
from ui.api.errors import TOO_LONG
from ui.chat.conversation import Reply, ReplyState, Turn
from ui.chat.markdown import render
from ui.elements.basic import Button, Icon, Text
from ui.elements.frame import add_logo


@dataclass(frozen=True)
class TurnActions:
    """What the buttons below a reply do."""

    again: Callable[[], Any]
    edit: Callable[[], Any]
    use_seed: Callable[[int], Any]


class TurnView:
    """The elements of a turn. Of the reply, only blocks that changed are sent to the browser."""

    def __init__(self, turn: Turn, actions: TurnActions) -> None:
        self._actions = actions
        self._seed: int | None = None
        self._blocks: list[ui.html] = []
        self._tail: list[Text] = []
        self.element = ui.element("article").classes("turn").mark("turn")
        with self.element:
            with ui.element("div").classes("question"):
                text = Text(turn.question, "div").classes("question-text").mark("question")
                text.props('dir="auto" aria-label="You asked"')
            self._reply = ui.element("section").classes("reply").mark("reply")
            self._reply.props('aria-label="Reply of piBLOOM"')
            with self._reply:
                add_logo("reply-mark")
                with ui.element("div").classes("reply-body"):
                    self._prose = ui.element("div").classes("prose").props('dir="auto"')
                    self._prose.mark("prose")
                    self._build_state()
        self.set_blocks(0, render(turn.reply.text))
        self.show(turn.reply, last=False)

    def _build_state(self) -> None:
        self._state = ui.element("div").classes("state").mark("state")
        with self._state:
            self._icon = Icon("ask")
            self._text = Text().classes("state-text").mark("state-text")
            with ui.element("div").classes("state-actions"):
                self._seed_button = Button("", on_click=self._use_seed).mark("use-seed")
                self._copy = Button("Copy this reply", "copy", bare=True).mark("copy")
                self._again = Button("Regenerate", "again", self._actions.again, bare=True)
                self._again.mark("regenerate")
                self._retry = Button("Retry", "again", self._actions.again).classes("button-line")
                self._retry.mark("retry")
                self._edit = Button("Edit the message", "edit", self._actions.edit)
                self._edit.classes("button-line").mark("edit")

    def start(self) -> None:
        """Empty the reply: a new one begins."""
        self.set_blocks(0, [])
        self.show_buttons(None, last=True)
        self._reply.classes(add="writing").props('aria-busy="true"')

    def set_blocks(self, first: int, blocks: Sequence[str]) -> None:
        """Show HTML blocks in place of those from index `first` on and of appended text."""
        while self._tail:
            self._tail.pop().delete()
        for index, content in enumerate(blocks, first):
            if index < len(self._blocks):
                self._blocks[index].set_content(content)
            else:
                with self._prose:
                    self._blocks.append(ui.html(content).classes("block"))
        # An underline can turn two blocks into one.
        while len(self._blocks) > first + len(blocks):
            self._blocks.pop().delete()

    def append(self, text: str) -> None:
        """Show plain text after the blocks, until the next `set_blocks`."""
        with self._prose:
            self._tail.append(Text(text).classes("tail"))

    def show_progress(self, icon: str, text: str) -> None:
        """Show what the running reply waits for, or how far it is."""
        self._show_state("running", icon, text)

    def show(self, reply: Reply, *, last: bool) -> None:
        """Show a reply that is not running: as it was stored, or as it has just ended."""
        self._reply.classes(remove="writing").props('aria-busy="false"')
        if reply.state == "failed":
            self._show_state("failed", "alert", reply.problem)
        elif reply.state == "stopped":
            count = f" · {numbers.plural(reply.tokens, 'token')}" if reply.tokens else ""
            self._show_state("stopped", "stop", f"Stopped{count}")
        elif reply.state == "done":
            self._show_state("done", "check", describe(reply))
        self.show_buttons(reply, last=last)

    def _show_state(self, kind: ReplyState, icon: str, text: str) -> None:
        self._icon.show(icon)
        self._text.text = text
        self._state.classes(replace=f"state state-{kind}")

    def show_buttons(self, reply: Reply | None, *, last: bool) -> None:
        """Show the buttons that fit a reply; only the last one can be asked for again."""
        state = reply.state if reply else "running"
        text = reply.text if reply else ""
        too_long = reply is not None and reply.problem_kind in TOO_LONG
        self._seed = reply.seed if reply else None
        self._seed_button.visible = self._seed is not None and state == "done"
        self._seed_button.label.text = f"seed {numbers.shortened(str(self._seed))}"
        self._seed_button.props["title"] = f"Use the seed {self._seed} for the next replies"
        self._copy.visible = state != "running" and bool(text)
        self._copy.props["data-copy"] = text
        self._again.visible = last and state in ("done", "stopped")
        self._retry.visible = last and state == "failed" and not too_long
        self._edit.visible = last and state == "failed" and too_long

    def _use_seed(self) -> None:
        if self._seed is not None:
            self._actions.use_seed(self._seed)


def describe(reply: Reply) -> str:
    """Return what a finished reply took, in a line."""
    parts = [numbers.plural(reply.tokens, "token")]
    if reply.tokens_per_second:
        parts.append(numbers.token_rate(reply.tokens_per_second))
    parts.append(numbers.seconds(reply.seconds))
    if reply.waited:
        parts.append(f"awake after {numbers.seconds(reply.waited)}")
    if reply.finish_reason == "length":
        parts.append("cut short by the length limit")
    return " · ".join(parts)
