"""The chat page: one per browser tab, with the tab's own conversation.

A reply runs as one task. Stopping it, leaving the page or opening the page anew in the same tab
ends that task, and with its connection the generation.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import app, background_tasks, ui

from ui import client as functions_api
from ui.client import Failure, Functions, Model
from ui.conversation import Conversation, Reply, Turn
from ui.frame import LOGO, Button, Icon, Text, brand, dress
from ui.limits import CHAT_CHARACTERS, MESSAGE_CHARACTERS
from ui.options import OptionsStore, SettingsPanel
from ui.running import Pace, RunningReply
from ui.turn import TOO_LONG, Actions, TurnView, describe, plural

log = logging.getLogger(__name__)

MOST_COUNTED = 20_000  # characters: of a longer draft, no tokens are counted and nothing is warmed

EXAMPLES = (
    ("Who are you?", "en"),
    ("What is piBLOOM?", "en"),
    ("What is 7 plus 5?", "en"),
    ("Tell me a story about a fox.", "en"),
    ("كيف حالك؟", "ar"),
    ("你是谁？", "zh"),
)


@dataclass
class Timing:
    """How long the chat waits for things, in seconds."""

    batch: float = 0.03  # between two updates of a streaming reply
    debounce: float = 0.25  # after the last key, before tokens are counted
    warm: float = 0.75  # after that, before the model reads along
    tick: float = 0.5  # between two looks at the clock while the model wakes
    waking: float = 0.5  # without an answer, before the chat says that the model wakes up
    recheck: float = 1.0  # before the first check on a function that is away
    recheck_most: float = 5.0
    notice: float = 6.0  # how long "is back" and "Undo" stay


@dataclass
class Tabs:
    """The page that each browser tab has open now."""

    pages: dict[str, "ChatPage"] = field(default_factory=dict)

    def take(self, tab: str, page: "ChatPage") -> None:
        """Make `page` the tab's page; the one before it, if still there, lets go first."""
        before = self.pages.get(tab)
        if before is not None:
            before.leave()
        self.pages[tab] = page

    def drop(self, tab: str, page: "ChatPage") -> None:
        """Forget a page that is gone, unless another one has taken its place."""
        if self.pages.get(tab) is page:
            del self.pages[tab]


class ChatPage:
    """The chat in one tab."""

    def __init__(self, functions: Functions, tabs: Tabs, timing: Timing) -> None:
        self._functions, self._tabs, self._timing = functions, tabs, timing
        self._client = ui.context.client
        self._chat = Conversation()
        self._storage: MutableMapping[str, Any] | None = None
        self._views: list[TurnView] = []
        self._model: Model | None = None
        self._task: asyncio.Task[None] | None = None
        self._run: RunningReply | None = None  # of the last reply that was asked for
        self._watching: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._draft_tokens: int | None = None
        self._was_away = False
        self._resumed: Turn | None = None  # resumed once already, so not again by itself
        self._cleared: dict[str, Any] | None = None
        self._build()
        ui.on("pibloom_stop", self.stop)
        ui.on("pibloom_leave", self.leave)
        self._client.on_connect(self._came_back)
        self._client.on_delete(self.leave)

    # what is on the page

    def _build(self) -> None:
        theme = dress("piBLOOM")
        self._options = OptionsStore()
        self._panel = SettingsPanel(self._options, theme)
        with ui.element("header").classes("top"):
            brand()
            self._chip = ui.element("div").classes("chip").props('role="status"').mark("chip")
            with self._chip:
                self._chip_text = Text("Connecting…")
            ui.element("div").classes("space")
            Button("New chat", "new", self.new_chat).mark("new-chat")
            Button("Settings", "settings", self._panel.open).mark("settings")
            with ui.element("a").classes("button").props('href="/about"').mark("about"):
                Icon("about")
                Text("About")
        self._banner = ui.element("div").classes("banner").props('role="alert"').mark("banner")
        with self._banner:
            self._banner_icon = Icon("alert")
            self._banner_text = Text()
            self._try_now = Button("Try now", on_click=self._check_now).classes("button-line")
        self._banner.visible = False
        with ui.element("main").classes("scroll").props('tabindex="-1"'):
            self._build_empty()
            self._turns = ui.element("div").classes("column-text turns")
            self._turns.props('role="log" aria-live="off" aria-label="Conversation"')
            self._turns.visible = False
        with ui.element("div").classes("jump-holder"):
            Button("Go to the newest message", "down", bare=True).classes("jump")
            self._toast = ui.element("div").classes("toast").props('role="status"').mark("toast")
            with self._toast:
                Text("The chat was cleared.")
                Button("Undo", on_click=self._undo_clear).mark("undo")
            self._toast.visible = False
        self._build_composer()
        # A reply is read out once, when it is there: token by token nobody could follow.
        self._said = Text("", "div").classes("sr-only").mark("said")
        self._said.props('role="status" aria-live="polite"')
        ui.html('<div id="said" class="sr-only" role="status"></div>', sanitize=False)
        self._note = self._build_note()

    def _build_empty(self) -> None:
        self._empty = ui.element("div").classes("column-text empty").mark("empty")
        with self._empty:
            logo = ui.html(LOGO, sanitize=False, tag="span").classes("empty-logo")
            logo.props('aria-hidden="true"')
            Text("What shall we talk about?", "h1")
            self._greeting = Text(
                "A BLOOM language model answers here. What you write goes to no other service.", "p"
            ).mark("greeting")
            with ui.element("div").classes("examples"):
                for text, language in EXAMPLES:
                    button = Button(text, on_click=partial(self.send, text))
                    button.classes("example").props(f'dir="auto" lang="{language}"').mark("example")
        self._empty.visible = False  # until the tab's own chat is known

    def _build_composer(self) -> None:
        with ui.element("div").classes("dock column-text"):
            with ui.element("div").classes("composer"):
                self._input = ui.textarea(
                    placeholder="Message piBLOOM", on_change=lambda e: self._typed(e.value or "")
                )
                self._input.props(
                    'autogrow borderless dir="auto" rows="1" autofocus enterkeyhint="send"'
                    ' aria-label="Your message" autocomplete="off"'
                    f' data-limit="{MESSAGE_CHARACTERS}"'
                ).mark("input")
                # Enter in the middle of composing Chinese or Japanese picks a candidate.
                self._input.on(
                    "keydown",
                    lambda e: self.send(e.args if isinstance(e.args, str) else self._input.value),
                    js_handler="""(event) => {
                        if (event.key !== "Enter" || event.shiftKey) return;
                        if (event.isComposing || event.keyCode === 229) return;
                        event.preventDefault();
                        emit(event.target.value);
                    }""",
                )
                self._send = Button(
                    "Send", "send", lambda: self.send(self._input.value), bare=True
                ).classes("button-main")
                self._send.mark("send")
                self._stop = Button("Stop", "stop", self.stop, bare=True).classes("button-stop")
                self._stop.mark("stop")
                self._stop.visible = False
            with ui.element("div").classes("under"):
                self._draft = Text("").mark("draft-tokens")
                self._meter = ui.element("span").classes("meter").mark("context")
                with self._meter:
                    self._meter_text = Text("")
                    with ui.element("div").classes("meter-bar").props('aria-hidden="true"'):
                        self._meter_bar = ui.element("div")
                self._meter.visible = False
                Text("Enter sends · Shift+Enter starts a new line").classes("hint")

    def _build_note(self) -> ui.element:
        with self._turns:
            note = ui.element("div").classes("note").mark("left-out")
            with note:
                Text("The messages above no longer fit into the model's memory.")
        note.visible = False
        return note

    # the tab's own chat

    async def run(self) -> None:
        """Wait for the browser, restore the tab's chat, and look after the function."""
        await self._client.connected(timeout=30)
        tab = self._client.tab_id
        if tab is None:
            return
        self._tabs.take(tab, self)
        self._client.on_delete(lambda: self._tabs.drop(tab, self))
        self._storage = app.storage.tab
        self._chat = Conversation.load(self._storage.get("chat", {}))
        self._input.value = self._storage.get("draft", "")
        self._show_chat()
        self._watch()

    def _show_chat(self) -> None:
        self._turns.clear()
        self._note = self._build_note()
        self._views = []
        for turn in self._chat.turns:
            self._add_view(turn)
        if self._views:
            self._views[-1].mark_last(self._chat.turns[-1].reply, last=True)
        self._place_note()
        self._show_fill()

    def _add_view(self, turn: Turn) -> TurnView:
        if self._views:
            self._views[-1].mark_last(self._chat.turns[len(self._views) - 1].reply, last=False)
        with self._turns:
            view = TurnView(turn, Actions(self.again, self._edit, self._use_seed))
        self._views.append(view)
        self._place_note()
        return view

    def _place_note(self) -> None:
        self._empty.visible = not self._chat.turns
        self._turns.visible = bool(self._chat.turns)
        self._note.visible = self._chat.left_out > 0
        if self._note.visible:
            self._note.move(self._turns, target_index=self._chat.left_out)

    def _save(self) -> None:
        if self._storage is not None:
            self._storage["chat"] = self._chat.dump()

    # asking

    def send(self, text: str | None) -> None:
        """Ask the model, unless it is still answering; then the text stays where it is."""
        text = (text or "").strip()
        if not text or self._task is not None or self._storage is None:
            return
        if self._chat.characters + len(text) > CHAT_CHARACTERS:
            self._draft.text = "This chat is full. Start a new one to send this."
            return
        self._input.value = ""  # and nothing reads along any more: `_typed` ends it
        self._toast.visible = False
        turn = Turn(text)
        self._chat.turns.append(turn)
        self._add_view(turn)
        self._ask()

    def again(self) -> None:
        """Ask for another reply to the last message, in place of the one that is there."""
        if self._task is None and self._chat.turns:
            self._ask()

    def _ask(self) -> None:
        self._chat.turns[-1].reply = Reply()
        self._save()
        self._views[-1].start()
        self._views[-1].progress("ask", "Asking…")
        self._send.visible, self._stop.visible = False, True
        self._input.run_method("focus")
        if self._run is not None:
            self._run.replace()
        timing = self._timing
        pace = Pace(timing.batch, timing.tick, timing.waking)
        self._run = RunningReply(self._chat.turns[-1].reply, self._views[-1], pace)
        self._task = background_tasks.create(self._answer(self._run), name="reply")

    async def _answer(self, run: RunningReply) -> None:
        """Stream a reply to its end, whatever that is; `stop` cancels this, and shows the rest."""
        reply = run.reply
        try:
            await self._stream(run)
        except Failure as failure:
            await self._finish_failed(run, failure)
            if failure.away:
                # Without a word of it, silence is a pod that took too long to start.
                started = bool(reply.text) or failure.kind == "broken"
                self._was_away = self._was_away or not started
                self._watch()
        except Exception as error:
            # The exception's own words may hold what somebody wrote, so they are not logged.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("a reply failed: %s\n%s", type(error).__name__, frames)
            await self._finish_failed(run, Failure("internal", "Something went wrong in the chat."))
        else:
            await self._finish(run)
            self._said.text = f"{reply.text}\n{describe(reply)}"

    async def _finish_failed(self, run: RunningReply, failure: Failure) -> None:
        reply = run.reply
        reply.state, reply.problem_kind = "failed", failure.kind
        reply.problem = self._sentence(failure)
        await self._finish(run)
        self._said.text = reply.problem

    async def _stream(self, run: RunningReply) -> None:
        left_out = self._chat.left_out
        self._fit_before()
        while True:
            try:
                options = self._options.value
                events = self._functions.reply(self._chat.messages(), options)
                async with aclosing(events):
                    async for event in events:
                        self._take(run, event)
                return
            except Failure as failure:
                if failure.kind in TOO_LONG and self._fit_after(failure):
                    continue
                if failure.kind in TOO_LONG:  # too long by itself: it pushes nothing out
                    self._chat.left_out = left_out
                    self._place_note()
                raise

    def _take(self, run: RunningReply, event: functions_api.Event) -> None:
        run.take(event)
        if isinstance(event, functions_api.Done):
            self._chat.learn(event.prompt_tokens)
            self._show_fill()
        elif isinstance(event, functions_api.Generating | functions_api.Token):
            self._here()

    async def _finish(self, run: RunningReply) -> None:
        """Show how a reply ended, and let the next message be sent."""
        await run.end()
        self._save()
        self._task = None
        if not self._client.is_deleted:
            run.view.show(run.reply, last=True)
            self._send.visible, self._stop.visible = True, False

    def stop(self) -> None:
        """End the running reply, and keep what there is of it."""
        task, self._task = self._task, None
        if task is None or self._run is None:
            return
        task.cancel()
        reply = self._run.reply
        if reply.state == "running":
            reply.state = "stopped"
        self._run.stop()
        self._save()
        self._run.view.show(reply, last=True)
        self._send.visible, self._stop.visible = True, False
        self._said.text = "Stopped"
        self._input.run_method("focus")

    def leave(self) -> None:
        """End everything that runs for a page that is no longer looked at."""
        if not self._client.is_deleted:
            self.stop()
        for task in (self._watching, self._counting):
            if task is not None:
                task.cancel()
        self._watching = self._counting = None

    def _came_back(self) -> None:
        """Go on after the browser was away for a moment, or showed the page from its cache."""
        if self._storage is not None and (self._model is None or self._was_away):
            self._watch()

    def new_chat(self) -> None:
        """Start an empty chat; the one that was there can be had back for a while."""
        self.stop()
        if self._chat.turns:
            self._cleared = self._chat.dump()
            self._toast.visible = True
            self._later(self._timing.notice, lambda: self._hide(self._toast))
        self._chat = Conversation()
        self._save()
        self._show_chat()
        self._input.run_method("focus")

    def _undo_clear(self) -> None:
        self._toast.visible = False
        if self._cleared is not None and not self._chat.turns:
            self._chat = Conversation.load(self._cleared)
            self._save()
            self._show_chat()
        self._cleared = None

    def _edit(self) -> None:
        """Take the last message back into the input."""
        if self._task is not None or not self._chat.turns:
            return
        turn = self._chat.turns.pop()
        self._views.pop().element.delete()
        self._chat.left_out = min(self._chat.left_out, max(0, len(self._chat.turns) - 1))
        self._save()
        self._place_note()
        self._input.value = turn.question
        self._input.run_method("focus")

    def _use_seed(self, seed: int) -> None:
        self._panel.use_seed(seed)
        self._panel.open()

    # the model's memory

    def _fit_before(self) -> None:
        """Leave out what would leave no room for a reply, as far as that can be guessed."""
        if self._model is not None and self._chat.tokens:
            room = min(self._options.value.max_new_tokens, self._model.max_context // 4)
            if self._chat.make_room(self._model.max_context - room):
                self._place_note()

    def _fit_after(self, failure: Failure) -> bool:
        """Leave out older turns after the model said that the chat is too long."""
        if failure.prompt_tokens and failure.max_context:
            self._chat.learn(failure.prompt_tokens)
            fitted = self._chat.make_room(failure.max_context * 3 // 4)
        else:
            fitted = False
        fitted = fitted or self._chat.leave_out_one()
        if fitted:
            self._save()
            self._place_note()
        return fitted

    def _sentence(self, failure: Failure) -> str:
        if failure.kind != "context_full" or failure.max_context is None:
            return failure.message
        size = plural(failure.prompt_tokens or 0, "token")
        return (
            f"This message is too long for the model: {size}, and it reads fewer than"
            f" {failure.max_context:,} at a time. Shorten it to send it."
        )

    def _show_fill(self) -> None:
        limit = self._model.max_context if self._model else 0
        self._meter.visible = bool(limit)
        if limit:
            used = min(limit, self._chat.tokens + (self._draft_tokens or 0))
            self._meter_text.text = f"Chat {used:,} / {limit:,}"
            self._meter.props["title"] = "Tokens of this chat, of those that the model can read"
            self._meter_bar.style(replace=f"width: {100 * used / limit:.1f}%")

    # what is being typed

    def _typed(self, text: str) -> None:
        if self._storage is not None:
            self._storage["draft"] = text
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        if not text.strip():
            self._show_draft(None, "")
        else:
            self._counting = background_tasks.create(self._count(text), name="token count")

    async def _count(self, text: str) -> None:
        await asyncio.sleep(self._timing.debounce)
        if len(text) > MOST_COUNTED:
            self._show_draft(None, f"more than {MOST_COUNTED:,} characters")
            return
        try:
            count = await self._functions.count(text)
        except Failure:
            self._show_draft(None, "– tokens")
        else:
            if text == self._input.value:  # an answer that comes late is an answer about old text
                self._show_draft(count, plural(count, "token"))
        await asyncio.sleep(self._timing.warm)
        if self._task is None:
            with suppress(Failure):  # nobody asked for this
                await self._functions.warm(self._chat.messages(text))

    def _show_draft(self, count: int | None, text: str) -> None:
        self._draft_tokens = count
        self._draft.text = text
        self._show_fill()

    # whether the function is there

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = background_tasks.create(self._until_here(), name="watch")

    async def _until_here(self) -> None:
        wait = self._timing.recheck
        self._later(self._timing.waking, self._still_connecting)
        while True:
            try:
                await self._functions.ready()
                about = await self._functions.about()
            except Failure as failure:
                self._not_here(failure)
            else:
                if about.model is not None:
                    self._model = about.model
                    self._here()
                    return
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, self._timing.recheck_most)

    def _check_now(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self._banner_text.text = "Looking for the model…"
        self._watch()

    def _still_connecting(self) -> None:
        if self._model is None and not self._was_away and not self._client.is_deleted:
            self._show_chip("waking", "Waking up…")

    def _not_here(self, failure: Failure) -> None:
        if failure.kind in ("loading", "draining") and not self._was_away:
            self._show_chip("waking", "Waking up…")
            return
        self._was_away = True
        waking = failure.kind in ("loading", "draining")
        self._show_chip("waking" if waking else "away", "Waking up…" if waking else "Offline")
        self._banner.visible = True
        self._banner.classes(remove="banner-back")
        self._banner_icon.show("alert")
        self._banner_text.text = (
            f"{failure.message} Your text is kept, and the chat goes on as soon as it is back."
        )
        self._try_now.visible = True

    def _here(self) -> None:
        """The function answers: say so if it was away, and go on with what was left undone."""
        name = self._model.name if self._model else "Ready"
        self._show_chip("ready", name)
        self._show_fill()
        if self._model is not None:
            self._greeting.text = (
                f"{name} answers here, a BLOOM with {compact(self._model.parameters)} parameters."
                " What you write goes to no other service."
            )
        if not self._was_away:
            return
        self._was_away = False
        self._banner.visible = True
        self._banner.classes(add="banner-back")
        self._banner_icon.show("check")
        self._banner_text.text = "The model is back."
        self._try_now.visible = False
        self._later(self._timing.notice, self._hide_back)
        self._typed(self._input.value or "")  # what could not be counted meanwhile
        last = self._chat.turns[-1] if self._chat.turns else None
        if last is None or self._task is not None or last is self._resumed:
            return
        if last.reply.state == "failed" and last.reply.problem_kind in functions_api.AWAY:
            self._resumed = last
            self.again()

    def _show_chip(self, kind: str, text: str) -> None:
        self._chip.classes(replace=f"chip chip-{kind}")
        self._chip_text.text = text

    def _hide_back(self) -> None:
        if not self._was_away:
            self._hide(self._banner)

    def _hide(self, element: ui.element) -> None:
        if not self._client.is_deleted:
            element.visible = False

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)


def compact(count: int) -> str:
    """Return a large count as people say it: 1.3 million."""
    for size, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + word
    return str(count)
