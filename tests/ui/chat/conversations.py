"""Chats for tests."""

from ui.chat.conversation import Conversation, Reply, Turn


def chat(*replies: str) -> Conversation:
    """Return a chat with these replies, and a last question without any."""
    turns = [
        Turn(f"question {i}", Reply(text=text, state="done")) for i, text in enumerate(replies)
    ]
    return Conversation([*turns, Turn("now")])
