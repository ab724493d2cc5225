"""What is kept of a tab while its page is reloaded: its chat, and the text being typed."""

from collections.abc import MutableMapping
from typing import Any

from ui.chat.conversation import Conversation


class TabStore:
    """A tab's chat and draft, in a mapping such as NiceGUI's tab storage."""

    def __init__(self, storage: MutableMapping[str, Any]) -> None:
        self._storage = storage

    def load_chat(self) -> Conversation:
        """Return the chat that was saved last, or an empty one."""
        return Conversation.load(self._storage.get("chat", {}))

    def save_chat(self, chat: Conversation) -> None:
        """Keep the chat as it is now."""
        self._storage["chat"] = chat.dump()

    @property
    def draft(self) -> str:
        """The text in the composer."""
        text: str = self._storage.get("draft", "")
        return text

    @draft.setter
    def draft(self, text: str) -> None:
        self._storage["draft"] = text
