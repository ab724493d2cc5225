"""Whether the generate function answers: checked until it does, and shown on the page."""

import asyncio
from collections.abc import Callable

from nicegui import background_tasks, ui

from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.status import ServedModel
from ui.chat.timing import Timing
from ui.elements.basic import Button, Icon, Text


class StatusChip:
    """The chip in the header: which model answers, or that none does yet."""

    def __init__(self) -> None:
        self._element = ui.element("div").classes("chip").props('role="status"').mark("chip")
        with self._element:
            self._text = Text("Connecting…")

    def show_ready(self, name: str) -> None:
        """Show the name of the model that answers."""
        self._show("ready", name)

    def show_waking(self) -> None:
        """Show that the function starts up."""
        self._show("waking", "Waking up…")

    def show_offline(self) -> None:
        """Show that the function does not answer."""
        self._show("away", "Offline")

    def _show(self, kind: str, text: str) -> None:
        self._element.classes(replace=f"chip chip-{kind}")
        self._text.text = text


class StatusBanner:
    """The banner below the header: that the function is away, or that it is back."""

    def __init__(self, check_now: Callable[[], None]) -> None:
        self._element = ui.element("div").classes("banner").props('role="alert"').mark("banner")
        with self._element:
            self._icon = Icon("alert")
            self._text = Text()
            self._try_now = Button("Try now", on_click=check_now).classes("button-line")
        self.hide()

    def show_away(self, reason: str) -> None:
        """Say why nothing answers, and that nothing is lost."""
        self._element.visible = True
        self._element.classes(remove="banner-back")
        self._icon.show("alert")
        self._text.text = f"{reason} Your text is kept, and the chat goes on as soon as it is back."
        self._try_now.visible = True

    def show_checking(self) -> None:
        """Say that the function is looked for now."""
        self._text.text = "Looking for the model…"

    def show_back(self) -> None:
        """Say that the function answers again."""
        self._element.visible = True
        self._element.classes(add="banner-back")
        self._icon.show("check")
        self._text.text = "The model is back."
        self._try_now.visible = False

    def hide(self) -> None:
        """Show nothing."""
        self._element.visible = False


class Availability:
    """Watches the function for one page.

    `on_answer` is called when it answers, which can be often, and `on_return` when it answers after
    it was away.
    """

    def __init__(
        self,
        functions: FunctionsClient,
        timing: Timing,
        *,
        on_answer: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        self._functions, self._timing = functions, timing
        self._on_answer, self._on_return = on_answer, on_return
        self._client = ui.context.client
        self._watching: asyncio.Task[None] | None = None
        self._away = False
        self.model: ServedModel | None = None  # None until it is known

    def build_chip(self) -> None:
        """Add the chip to the page."""
        self._chip = StatusChip()

    def build_banner(self) -> None:
        """Add the banner to the page."""
        self._banner = StatusBanner(self._check_now)

    def watch(self) -> None:
        """Check until the function answers, unless that is being done already."""
        if self._watching is None or self._watching.done():
            self._watching = background_tasks.create(self._check_until_ready(), name="watch")

    def resume(self) -> None:
        """Watch again after the browser was away, if there is something to wait for."""
        if self.model is None or self._away:
            self.watch()

    def cancel(self) -> None:
        """End the watching."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def reply_failed(self, *, started: bool) -> None:
        """Note that a reply failed as if the function were away.

        A function that had not started to answer counts as away from now on.
        """
        self._away = self._away or not started
        self.watch()

    def answered(self) -> None:
        """Note that the function answers."""
        self._chip.show_ready(self.model.name if self.model else "Ready")
        self._on_answer()
        if self._away:
            self._away = False
            self._banner.show_back()
            asyncio.get_running_loop().call_later(self._timing.notice, self._hide_banner)
            self._on_return()

    async def _check_until_ready(self) -> None:
        wait = self._timing.first_recheck
        asyncio.get_running_loop().call_later(self._timing.waking_after, self._show_still_waiting)
        while True:
            try:
                await self._functions.check_ready()
                status = await self._functions.status()
            except FunctionError as error:
                self._show_away(error)
            else:
                if status.model is not None:
                    self.model = status.model
                    self.answered()
                    return
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, self._timing.longest_recheck)

    def _check_now(self) -> None:
        self.cancel()
        self._banner.show_checking()
        self.watch()

    def _show_still_waiting(self) -> None:
        if self.model is None and not self._away and not self._client.is_deleted:
            self._chip.show_waking()

    def _show_away(self, error: FunctionError) -> None:
        starting = error.kind in ("loading", "draining")
        if starting:
            self._chip.show_waking()
            if not self._away:
                return
        else:
            self._chip.show_offline()
        self._away = True
        self._banner.show_away(error.message)

    def _hide_banner(self) -> None:
        if not self._away and not self._client.is_deleted:
            self._banner.hide()
