"""The chat page: one per browser tab, with the tab's own conversation.

A reply runs as one task. Stopping it, leaving the page or opening the page again in the same tab
ends that task, and with its connection the generation.
"""

import asyncio

from nicegui import app, background_tasks, ui

from ui.api.client import FunctionsClient
from ui.api.errors import AWAY
from ui.api.events import DoneEvent, GeneratingEvent, ReplyEvent, TokenEvent
from ui.chat.availability import Availability
from ui.chat.composer import Composer
from ui.chat.context import reply_within_context
from ui.chat.conversation import Conversation, Reply, Turn
from ui.chat.draft import Draft
from ui.chat.running_reply import RunningReply
from ui.chat.store import TabStore
from ui.chat.tabs import Tabs
from ui.chat.timing import Timing
from ui.chat.transcript import Transcript
from ui.chat.turn import TurnActions, describe
from ui.chat.undo import UndoToast
from ui.chat.welcome import Welcome
from ui.elements.basic import Button, Icon, Text
from ui.elements.frame import add_brand, add_page_head
from ui.limits import CHAT_CHARACTERS
from ui.preferences.options import OptionsStore
from ui.preferences.panel import SettingsPanel


class ChatPage:
    """The chat in one tab."""

    def __init__(self, functions: FunctionsClient, tabs: Tabs["ChatPage"], timing: Timing) -> None:
        self._functions, self._tabs, self._timing = functions, tabs, timing
        self._client = ui.context.client
        self._chat = Conversation()
        self._store: TabStore | None = None  # None until the browser has connected
        self._task: asyncio.Task[None] | None = None  # of the reply that runs
        self._running: RunningReply | None = None  # the last reply that was asked for
        self._resumed: Turn | None = None  # the turn that was asked again by itself, once
        self._availability = Availability(
            functions, timing, on_answer=self._show_model, on_return=self._resume
        )
        self._draft = Draft(functions, timing, self._show_draft, self._messages_with)
        self._build()
        ui.on("pibloom_stop", self.stop)
        ui.on("pibloom_leave", self.leave)
        self._client.on_connect(self._reconnect)
        self._client.on_delete(self.leave)

    async def run(self) -> None:
        """Wait for the browser, restore the tab's chat, and watch the function."""
        await self._client.connected(timeout=30)
        tab = self._client.tab_id
        if tab is None:
            return
        self._tabs.take(tab, self)
        self._client.on_delete(lambda: self._tabs.drop(tab, self))
        self._store = TabStore(app.storage.tab)
        self._chat = self._store.load_chat()
        self._composer.text = self._store.draft
        self._show_chat()
        self._availability.watch()

    # what the visitor does

    def send(self, text: str) -> None:
        """Ask the model; while it still answers, the text stays where it is."""
        text = text.strip()
        if not text or self._task is not None or self._store is None:
            return
        if self._chat.characters + len(text) > CHAT_CHARACTERS:
            self._composer.show_note("This chat is full. Start a new one to send this.")
            return
        self._composer.text = ""  # this also ends the counting of the draft
        self._toast.hide()
        self._chat.turns.append(Turn(text))
        self._transcript.add_last(self._chat)
        self._ask()

    def again(self) -> None:
        """Ask for another reply to the last message, in place of the one that is there."""
        if self._task is None and self._chat.turns:
            self._ask()

    def edit(self) -> None:
        """Move the last message back into the input."""
        if self._task is not None or not self._chat.turns:
            return
        turn = self._chat.turns.pop()
        self._chat.left_out = min(self._chat.left_out, max(0, len(self._chat.turns) - 1))
        self._transcript.remove_last(self._chat)
        self._save()
        self._composer.text = turn.question
        self._composer.focus()

    def stop(self) -> None:
        """End the running reply, and keep what there is of it."""
        task, self._task = self._task, None
        if task is None or self._running is None:
            return
        task.cancel()
        self._running.stop()
        self._save()
        self._show_end(self._running)
        self._announcement.text = "Stopped"
        self._composer.focus()

    def new_chat(self) -> None:
        """Start an empty chat; the one before can be brought back for a while."""
        self.stop()
        if self._chat.turns:
            self._toast.offer(self._chat)
        self._replace_chat(Conversation())
        self._composer.focus()

    def leave(self) -> None:
        """End everything that runs for a page that is no longer looked at."""
        if not self._client.is_deleted:
            self.stop()
        self._availability.cancel()
        self._draft.cancel()

    def _restore(self, chat: Conversation) -> None:
        if not self._chat.turns:
            self._replace_chat(chat)

    def _use_seed(self, seed: int) -> None:
        self._panel.use_seed(seed)
        self._panel.open()

    def _type(self, text: str) -> None:
        if self._store is not None:
            self._store.draft = text
        self._draft.change(text)

    def _reconnect(self) -> None:
        """Go on after the browser was away for a moment, or showed the page from its cache."""
        if self._store is not None:
            self._availability.resume()

    # the reply

    def _ask(self) -> None:
        """Start a reply to the last turn."""
        turn, view = self._chat.turns[-1], self._transcript.last
        turn.reply = Reply()
        self._save()
        view.start()
        view.show_progress("ask", "Asking…")
        self._composer.show_running(True)
        self._composer.focus()
        if self._running is not None:
            self._running.replace()
        self._running = RunningReply(turn.reply, view, self._timing)
        self._task = background_tasks.create(self._answer(self._running), name="reply")

    async def _answer(self, running: RunningReply) -> None:
        """Show a reply to its end, whatever that is; `stop` cancels this, and shows the rest."""
        model, reply = self._availability.model, running.reply
        events = reply_within_context(
            self._functions,
            self._chat,
            self._options.value,
            model.max_context if model else None,
            self._show_left_out,
        )
        error = await running.run(events, self._follow)
        self._save()
        self._task = None
        if not self._client.is_deleted:
            self._show_end(running)
        if error is None:
            self._announcement.text = f"{reply.text}\n{describe(reply)}"
            return
        self._announcement.text = reply.problem
        if error.away:
            # Without any event, the function may have taken too long to start.
            started = bool(reply.text) or error.kind == "broken"
            self._availability.reply_failed(started=started)

    def _follow(self, event: ReplyEvent) -> None:
        """Show what an event of the reply says of the chat and of the function."""
        if isinstance(event, DoneEvent):
            self._show_fill()
        elif isinstance(event, GeneratingEvent | TokenEvent):
            self._availability.answered()

    def _resume(self) -> None:
        """Go on with what the function was away for."""
        self._type(self._composer.text)  # the draft may be uncounted
        last = self._chat.turns[-1] if self._chat.turns else None
        if last is None or self._task is not None or last is self._resumed:
            return
        if last.reply.state == "failed" and last.reply.problem_kind in AWAY:
            self._resumed = last
            self.again()

    def _messages_with(self, draft: str) -> list[dict[str, str]] | None:
        return self._chat.messages(draft) if self._task is None else None

    # what is kept and shown

    def _save(self) -> None:
        if self._store is not None:
            self._store.save_chat(self._chat)

    def _replace_chat(self, chat: Conversation) -> None:
        self._chat = chat
        self._save()
        self._show_chat()

    def _show_chat(self) -> None:
        self._transcript.show(self._chat)
        self._show_fill()

    def _show_left_out(self) -> None:
        self._save()
        self._transcript.show_left_out(self._chat)

    def _show_end(self, running: RunningReply) -> None:
        running.view.show(running.reply, last=True)
        self._composer.show_running(False)

    def _show_model(self) -> None:
        self._show_fill()
        if self._availability.model is not None:
            self._welcome.introduce(self._availability.model)

    def _show_draft(self, count: str) -> None:
        self._composer.show_note(count)
        self._show_fill()

    def _show_fill(self) -> None:
        model = self._availability.model
        used = self._chat.tokens + (self._draft.tokens or 0)
        self._composer.show_fill(used, model.max_context if model else 0)

    # the elements

    def _build(self) -> None:
        theme = add_page_head("piBLOOM")
        self._options = OptionsStore()
        self._panel = SettingsPanel(self._options, theme)
        self._build_header()
        self._availability.build_banner()
        with ui.element("main").classes("scroll").props('tabindex="-1"'):
            self._welcome = Welcome(self.send)
            actions = TurnActions(self.again, self.edit, self._use_seed)
            self._transcript = Transcript(self._welcome, actions)
        with ui.element("div").classes("jump-holder"):
            Button("Go to the newest message", "down", bare=True).classes("jump")
            self._toast = UndoToast(self._timing.notice, self._restore)
        self._composer = Composer(on_send=self.send, on_stop=self.stop, on_change=self._type)
        # A screen reader reads a reply once, when it is whole: single tokens could not be followed.
        self._announcement = Text("", "div").classes("sr-only").mark("said")
        self._announcement.props('role="status" aria-live="polite"')
        ui.html('<div id="said" class="sr-only" role="status"></div>', sanitize=False)

    def _build_header(self) -> None:
        with ui.element("header").classes("top"):
            add_brand()
            self._availability.build_chip()
            ui.element("div").classes("space")
            Button("New chat", "new", self.new_chat).mark("new-chat")
            Button("Settings", "settings", self._panel.open).mark("settings")
            with ui.element("a").classes("button").props('href="/about"').mark("about"):
                Icon("about")
                Text("About")
