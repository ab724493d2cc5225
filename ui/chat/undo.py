"""The offer to bring back a chat that was just cleared."""

import asyncio
from collections.abc import Callable
from typing import Any

from nicegui import ui

from ui.chat.conversation import Conversation
from ui.elements.basic import Button, Text


class UndoToast:
    """Shown for some seconds after a chat was cleared; `restore` is called with that chat."""

    def __init__(self, seconds: float, restore: Callable[[Conversation], None]) -> None:
        self._seconds, self._restore = seconds, restore
        self._client = ui.context.client
        self._cleared: dict[str, Any] | None = None
        self._element = ui.element("div").classes("toast").props('role="status"').mark("toast")
        with self._element:
            Text("The chat was cleared.")
            Button("Undo", on_click=self._undo).mark("undo")
        self.hide()

    def offer(self, chat: Conversation) -> None:
        """Offer to bring back `chat`."""
        self._cleared = chat.dump()
        self._element.visible = True
        asyncio.get_running_loop().call_later(self._seconds, self._hide_later)

    def hide(self) -> None:
        """Take the offer off the page."""
        self._element.visible = False

    def _undo(self) -> None:
        self.hide()
        if self._cleared is not None:
            self._restore(Conversation.load(self._cleared))
        self._cleared = None

    def _hide_later(self) -> None:
        if not self._client.is_deleted:
            self.hide()
