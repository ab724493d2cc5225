"""The text being typed: when typing pauses, its tokens are counted and the model reads it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from nicegui import background_tasks

from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.chat.timing import Timing
from ui.format import plural

MOST_COUNTED = 20_000  # characters: a longer draft is neither counted nor read by the model


class Draft:
    """Follows what is typed; `tokens` is the last count, None while there is none.

    `show` is called with each new count in words. `messages_with` returns the chat with a text as
    its next question, or None while the model must not read it.
    """

    def __init__(
        self,
        functions: FunctionsClient,
        timing: Timing,
        show: Callable[[str], None],
        messages_with: Callable[[str], list[dict[str, str]] | None],
    ) -> None:
        self._functions, self._timing = functions, timing
        self._show_words, self._messages_with = show, messages_with
        self._text = ""
        self._counting: asyncio.Task[None] | None = None
        self.tokens: int | None = None

    def change(self, text: str) -> None:
        """Take in the text as it is now."""
        self._text = text
        self.cancel()
        if not text.strip():
            self._show(None, "")
        else:
            self._counting = background_tasks.create(self._count(text), name="token count")

    def cancel(self) -> None:
        """End the counting."""
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None

    async def _count(self, text: str) -> None:
        await asyncio.sleep(self._timing.count_after)
        if len(text) > MOST_COUNTED:
            self._show(None, f"more than {MOST_COUNTED:,} characters")
            return
        try:
            count = await self._functions.count_tokens(text)
        except FunctionError:
            self._show(None, "– tokens")
        else:
            if text == self._text:  # a late answer may be about an older text
                self._show(count, plural(count, "token"))
        await asyncio.sleep(self._timing.warm_after)
        messages = self._messages_with(text)
        if messages is not None:
            with suppress(FunctionError):  # the visitor did not ask for this
                await self._functions.warm(messages)

    def _show(self, count: int | None, words: str) -> None:
        self.tokens = count
        self._show_words(words)
