"""A reply while it is written: reads the stream's events, and shows them on the page in time.

Markdown is rendered in a thread of its own: a long reply would otherwise block the event loop, and
with it every other page and the probes.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from nicegui import background_tasks

from ui import format as numbers
from ui.api import events as api
from ui.api import sentences
from ui.api.errors import FunctionError
from ui.chat.conversation import Reply
from ui.chat.growing_markdown import GrowingMarkdown
from ui.chat.timing import Timing
from ui.chat.turn import TurnView

log = logging.getLogger(__name__)

_renderer = ThreadPoolExecutor(1, "markdown")


class RunningReply:
    """One attempt at a reply. Used on the event loop only; `run` or `stop` ends it, once."""

    def __init__(self, reply: Reply, view: TurnView, timing: Timing) -> None:
        """Start the clock."""
        self.reply, self.view, self._timing = reply, view, timing
        self._loop = asyncio.get_running_loop()
        self._markdown = GrowingMarkdown()
        self._pending: list[str] = []  # received, not yet rendered
        self._writing: asyncio.Task[None] | None = None
        self._next_write = 0.0  # no update before this time
        self._started = time.monotonic()
        self._first_token = 0.0
        self._loading = False
        self._replaced = False
        self._clock: asyncio.TimerHandle | None = self._loop.call_later(
            timing.waking_after, self._show_wait
        )

    async def run(
        self,
        events: AsyncGenerator[api.ReplyEvent, None],
        on_event: Callable[[api.ReplyEvent], None],
    ) -> FunctionError | None:
        """Show a stream to its end, whatever that is; return the error if it failed.

        `on_event` is called after each event was taken in.
        """
        error = None
        try:
            async with aclosing(events):
                async for event in events:
                    self._take(event)
                    on_event(event)
        except FunctionError as failed:
            error = failed
        except Exception as unexpected:
            # The exception's own message may hold what a visitor wrote, so it is not logged.
            frames = "".join(traceback.format_tb(unexpected.__traceback__))
            log.error("a reply failed: %s\n%s", type(unexpected).__name__, frames)
            error = FunctionError("internal", sentences.CHAT_FAULT)
        if error is not None:
            self.reply.state, self.reply.problem_kind = "failed", error.kind
            self.reply.problem = _sentence(error)
        self._stop_clocks()
        await self._write_rest()
        return error

    def stop(self) -> None:
        """End in the middle: what has arrived is shown soon, and no more after that."""
        if self.reply.state == "running":
            self.reply.state = "stopped"
        self._stop_clocks()
        background_tasks.create(self._write_rest(), name="rest of a reply")

    def replace(self) -> None:
        """Leave the view to another attempt: nothing of this one is shown any more."""
        self._replaced = True

    # the events of the stream

    def _take(self, event: api.ReplyEvent) -> None:
        if isinstance(event, api.LoadingEvent):
            self._loading = True
            self._show_wait()
            return
        self._end_wait()
        match event:
            case api.QueuedEvent(position=position):
                self.view.show_progress("queue", f"Waiting in line, at place {position}")
            case api.PrefillEvent(done=done, total=total):
                share = f" · {100 * done // total} %" if total else ""
                self.view.show_progress("read", f"Reading the prompt{share}")
            case api.GeneratingEvent():
                self.view.show_progress("write", "Writing…")
            case api.TokenEvent():
                self._take_token(event)
            case api.DoneEvent():
                self._take_done(event)

    def _take_token(self, token: api.TokenEvent) -> None:
        self._first_token = self._first_token or time.monotonic()
        self.reply.text += token.text
        self.reply.tokens = token.tokens
        self._pending.append(token.text)
        if self._writing is None:
            self._writing = background_tasks.create(self._write_on(), name="write a reply")

    def _take_done(self, done: api.DoneEvent) -> None:
        reply = self.reply
        if done.text != reply.text:  # the whole text counts, not its pieces
            self._markdown = GrowingMarkdown()
            self._pending = [done.text]
        reply.text, reply.state = done.text, "done"
        reply.tokens, reply.prompt_tokens = done.completion_tokens, done.prompt_tokens
        reply.tokens_per_second, reply.seconds = done.tokens_per_second, done.seconds
        reply.seed, reply.finish_reason = done.seed, done.finish_reason

    # the time

    def _show_wait(self) -> None:
        """Show whether the function wakes or loads, and for how long; again at each tick."""
        if self._clock is not None:
            self._clock.cancel()
        self.reply.waited = time.monotonic() - self._started
        doing = "Loading the model" if self._loading else "Waking the function"
        self.view.show_progress("wake", f"{doing}… {numbers.seconds(self.reply.waited)}")
        self._clock = self._loop.call_later(self._timing.clock_update, self._show_wait)

    def _end_wait(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
            if self.reply.waited:
                self.reply.waited = time.monotonic() - self._started

    def _stop_clocks(self) -> None:
        self._end_wait()
        self.reply.seconds = self.reply.seconds or time.monotonic() - self._started

    # the text

    async def _write_on(self) -> None:
        """Show new text while there is some, with pauses of `text_update` in between."""
        try:
            while self._pending and self.reply.state == "running":
                await asyncio.sleep(max(0.0, self._next_write - time.monotonic()))
                if self.reply.state == "running":
                    started = time.monotonic()
                    await self._write()
                    self._show_speed()
                    # On a slow machine the pauses grow, so that no backlog builds up.
                    now = time.monotonic()
                    self._next_write = now + max(self._timing.text_update, 3 * (now - started))
        finally:
            self._writing = None

    async def _write(self) -> None:
        """Render what has arrived, and show what changed by it."""
        markdown, text = self._markdown, "".join(self._pending)
        self._pending.clear()
        tail_before = markdown.tail
        first = await self._loop.run_in_executor(_renderer, markdown.feed, text)
        if markdown is not self._markdown or not self._shown:
            return
        tail = markdown.tail
        if tail_before and tail.startswith(tail_before):
            self.view.append(tail[len(tail_before) :])
        else:
            self.view.set_blocks(first, markdown.blocks[first:])
            if tail:
                self.view.append(tail)

    async def _write_rest(self) -> None:
        """Show the whole text, after a write that is under way."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        markdown, text = self._markdown, "".join(self._pending)
        self._pending.clear()

        def render() -> None:
            markdown.feed(text)
            markdown.finish()

        await self._loop.run_in_executor(_renderer, render)
        if self._shown:
            self.view.set_blocks(0, markdown.blocks)

    @property
    def _shown(self) -> bool:
        return not self._replaced and not self.view.element.is_deleted

    def _show_speed(self) -> None:
        if self.reply.state != "running" or not self._shown:
            return
        passed = time.monotonic() - self._first_token
        count = numbers.plural(self.reply.tokens, "token")
        # The first token's time went into reading the prompt, so it does not count.
        speed = f" · {numbers.token_rate((self.reply.tokens - 1) / passed)}" if passed > 0.3 else ""
        self.view.show_progress("write", f"Writing · {count}{speed}")


def _sentence(error: FunctionError) -> str:
    if error.kind == "context_full" and error.max_context is not None:
        return sentences.message_too_long(error.prompt_tokens or 0, error.max_context)
    return error.message
