"""One question and its reply on the page, updated in place while the reply streams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui import ui

from ui.conversation import Reply, Turn
from ui.frame import LOGO, Button, Icon, Text
from ui.markdown import render

Kind = Literal["running", "done", "stopped", "failed"]
TOO_LONG = ("context_full", "body_too_large")  # asking again would not help


@dataclass(frozen=True)
class Actions:
    """What a reply's buttons do."""

    again: Callable[[], Any]
    edit: Callable[[], Any]
    use_seed: Callable[[int], Any]


class TurnView:
    """The elements of a turn. Only the block of the reply that changes is sent to the browser."""

    def __init__(self, turn: Turn, actions: Actions) -> None:
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
                mark = ui.html(LOGO, sanitize=False, tag="span").classes("reply-mark")
                mark.props('aria-hidden="true"')
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
        self._buttons(None, last=True)
        self._reply.classes(add="writing").props('aria-busy="true"')

    def set_blocks(self, first: int, blocks: Sequence[str]) -> None:
        """Show HTML in place of all blocks from index `first` on, and of what was appended."""
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
        """Show text as it is, behind the blocks, until the next `set_blocks`."""
        with self._prose:
            self._tail.append(Text(text).classes("tail"))

    def progress(self, icon: str, text: str) -> None:
        """Say what the running reply waits for."""
        self._say("running", icon, text)

    def show(self, reply: Reply, *, last: bool) -> None:
        """Show a reply that is not running: as it was stored, or as it has just ended."""
        self._reply.classes(remove="writing").props('aria-busy="false"')
        if reply.state == "failed":
            self._say("failed", "alert", reply.problem)
        elif reply.state == "stopped":
            self._say("stopped", "stop", "Stopped" + _counted(reply, " · "))
        elif reply.state == "done":
            self._say("done", "check", describe(reply))
        self._buttons(reply, last=last)

    def mark_last(self, reply: Reply, *, last: bool) -> None:
        """Offer another attempt on the last reply only."""
        self._buttons(reply, last=last)

    def _say(self, kind: Kind, icon: str, text: str) -> None:
        self._icon.show(icon)
        self._text.text = text
        self._state.classes(replace=f"state state-{kind}")

    def _buttons(self, reply: Reply | None, *, last: bool) -> None:
        state = reply.state if reply else "running"
        text = reply.text if reply else ""
        too_long = reply is not None and reply.problem_kind in TOO_LONG
        self._seed = reply.seed if reply else None
        self._seed_button.visible = self._seed is not None and state == "done"
        self._seed_button.label.text = f"seed {_shortened(str(self._seed))}"
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
    line = plural(reply.tokens, "token")
    if reply.tokens_per_second:
        line += f" · {rate(reply.tokens_per_second)}"
    line += f" · {reply.seconds:.1f} s"
    if reply.waited:
        line += f" · awake after {reply.waited:.1f} s"
    if reply.finish_reason == "length":
        line += " · cut short by the length limit"
    return line


def rate(tokens_per_second: float) -> str:
    """Return a speed with as many digits as mean something."""
    return f"{tokens_per_second:.{0 if tokens_per_second >= 20 else 1}f} tokens/s"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, and commas between thousands."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 10 else f"{digits[:4]}…{digits[-4:]}"


def _counted(reply: Reply, before: str) -> str:
    return before + plural(reply.tokens, "token") if reply.tokens else ""
