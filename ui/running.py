"""A reply while it is written: takes in the stream's events and shows them on the page in time.

Markdown is rendered in a thread of its own, since a long reply would otherwise hold up the event
loop, and with it every other page and the probes.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nicegui import background_tasks

from ui import client as functions_api
from ui.conversation import Reply
from ui.markdown import Rendered
from ui.turn import TurnView, plural, rate

_renderer = ThreadPoolExecutor(1, "markdown")


@dataclass(frozen=True)
class Pace:
    """How often a page hears of a running reply, in seconds."""

    batch: float  # between two updates of its text
    tick: float  # between two looks at the clock while the model wakes
    waking: float  # without an answer, before the chat says that the model wakes up


class RunningReply:
    """One attempt at a reply. Used on the event loop only; `end` or `stop` ends it, once."""

    def __init__(self, reply: Reply, view: TurnView, pace: Pace) -> None:
        """Start the clock."""
        self.reply, self.view, self._pace = reply, view, pace
        self._loop = asyncio.get_running_loop()
        self._rendered = Rendered()
        self._pending: list[str] = []
        self._writing: asyncio.Task[None] | None = None
        self._next_write = 0.0  # not before this time
        self._started = time.monotonic()
        self._first_token = 0.0
        self._loading = False
        self._replaced = False
        self._waking: asyncio.TimerHandle | None = self._loop.call_later(pace.waking, self._wait)

    def take(self, event: functions_api.Event) -> None:
        """Take in an event of the stream."""
        if isinstance(event, functions_api.Loading):
            self._loading = True
            self._wait()
            return
        self._end_wait()
        match event:
            case functions_api.Queued(position=position):
                self.view.progress("queue", f"Waiting in line, at place {position}")
            case functions_api.Prefill(done=done, total=total):
                share = f" · {100 * done // total} %" if total else ""
                self.view.progress("read", f"Reading the prompt{share}")
            case functions_api.Generating():
                self.view.progress("write", "Writing…")
            case functions_api.Token():
                self._take_token(event)
            case functions_api.Done():
                self._take_done(event)

    async def end(self) -> None:
        """Show all of the text; the stream has ended."""
        self._close()
        await self._write_rest()

    def stop(self) -> None:
        """End in the middle: what has arrived is shown soon, and no more after that."""
        self._close()
        background_tasks.create(self._write_rest(), name="rest of a reply")

    def replace(self) -> None:
        """Leave the page to another attempt: nothing of this one is shown any more."""
        self._replaced = True

    def _close(self) -> None:
        self._end_wait()
        self.reply.seconds = self.reply.seconds or time.monotonic() - self._started

    def _wait(self) -> None:
        """Say where the function is on its way up from zero, and how long that has taken."""
        if self._waking is not None:
            self._waking.cancel()
        self.reply.waited = time.monotonic() - self._started
        doing = "Loading the model" if self._loading else "Waking the function"
        self.view.progress("wake", f"{doing}… {self.reply.waited:.1f} s")
        self._waking = self._loop.call_later(self._pace.tick, self._wait)

    def _end_wait(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
            if self.reply.waited:
                self.reply.waited = time.monotonic() - self._started

    def _take_token(self, token: functions_api.Token) -> None:
        self._first_token = self._first_token or time.monotonic()
        self.reply.text += token.text
        self.reply.tokens = token.tokens
        self._pending.append(token.text)
        if self._writing is None:
            self._writing = background_tasks.create(self._write_on(), name="write a reply")

    def _take_done(self, done: functions_api.Done) -> None:
        reply = self.reply
        if done.text != reply.text:  # the whole is what counts
            self._rendered = Rendered()
            self._pending = [done.text]
        reply.text, reply.state = done.text, "done"
        reply.tokens, reply.prompt_tokens = done.completion_tokens, done.prompt_tokens
        reply.tokens_per_second, reply.seconds = done.tokens_per_second, done.seconds
        reply.seed, reply.finish_reason = done.seed, done.finish_reason

    async def _write_on(self) -> None:
        """Show text as long as there is some, at the page's pace."""
        try:
            while self._pending and self.reply.state == "running":
                await asyncio.sleep(max(0.0, self._next_write - time.monotonic()))
                if self.reply.state == "running":
                    started = time.monotonic()
                    await self._write()
                    self._say_progress()
                    # A slow machine gets longer pauses instead of a backlog.
                    now = time.monotonic()
                    self._next_write = now + max(self._pace.batch, 3 * (now - started))
        finally:
            self._writing = None

    async def _write(self) -> None:
        """Render what has arrived, and show what changed by it."""
        rendered, text = self._rendered, "".join(self._pending)
        self._pending.clear()
        waiting = rendered.tail
        first = await self._loop.run_in_executor(_renderer, rendered.feed, text)
        if rendered is not self._rendered or not self._shown:
            return
        tail = rendered.tail
        if waiting and tail.startswith(waiting):
            self.view.append(tail[len(waiting) :])
        else:
            self.view.set_blocks(first, rendered.blocks[first:])
            if tail:
                self.view.append(tail)

    async def _write_rest(self) -> None:
        """Show the whole text, once no other write is on its way."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        rendered, text = self._rendered, "".join(self._pending)
        self._pending.clear()

        def render() -> None:
            rendered.feed(text)
            rendered.finish()

        await self._loop.run_in_executor(_renderer, render)
        if self._shown:
            self.view.set_blocks(0, rendered.blocks)

    @property
    def _shown(self) -> bool:
        return not self._replaced and not self.view.element.is_deleted

    def _say_progress(self) -> None:
        if self.reply.state != "running" or not self._shown:
            return
        passed = time.monotonic() - self._first_token
        speed = f" · {rate((self.reply.tokens - 1) / passed)}" if passed > 0.3 else ""
        self.view.progress("write", f"Writing · {plural(self.reply.tokens, 'token')}{speed}")
