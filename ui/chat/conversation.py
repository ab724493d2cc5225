"""A chat as data: its turns, what of it is sent to the model, and how it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

ReplyState = Literal["running", "done", "stopped", "failed"]


@dataclass
class Reply:
    """What the model answered, so far or in the end."""

    text: str = ""
    state: ReplyState = "running"
    tokens: int = 0
    prompt_tokens: int = 0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0  # seconds until the function answered, when it had to wake up
    seed: int | None = None
    finish_reason: str = ""
    problem: str = ""  # why it failed, a sentence
    problem_kind: str = ""


@dataclass
class Turn:
    """A question and its reply."""

    question: str
    reply: Reply = field(default_factory=Reply)


@dataclass
class Conversation:
    """The turns of a chat; the first `left_out` of them are no longer sent to the model."""

    turns: list[Turn] = field(default_factory=list)
    left_out: int = 0
    tokens_per_character: float = 0.5  # a guess, until the model has counted (see context.py)

    def messages(self, draft: str | None = None) -> list[dict[str, str]]:
        """Return what to send for a reply to the last turn, or to a `draft` after it.

        A turn without a reply is left out, since models are trained on chats in which the roles
        alternate.
        """
        if draft is None:
            turns, question = self.turns[self.left_out : -1], self.turns[-1].question
        else:
            turns, question = self.turns[self.left_out :], draft.strip()
        messages = []
        for turn in turns:
            if turn.reply.text.strip():
                messages.append({"role": "user", "content": turn.question})
                messages.append({"role": "assistant", "content": turn.reply.text})
        return [*messages, {"role": "user", "content": question}]

    @property
    def tokens(self) -> int:
        """How many tokens the chat had when the model last answered; 0 before that."""
        for turn in reversed(self.turns[self.left_out :]):
            if turn.reply.prompt_tokens:
                return turn.reply.prompt_tokens + turn.reply.tokens
        return 0

    @property
    def characters(self) -> int:
        """How long all turns are together, also those no longer sent."""
        return sum(len(turn.question) + len(turn.reply.text) for turn in self.turns)

    @property
    def characters_sent(self) -> int:
        """How long all that is sent for the next reply is, with the chat template's own words."""
        # The template adds a few characters to each message.
        return sum(len(message["content"]) + 8 for message in self.messages())

    def dump(self) -> dict[str, Any]:
        """Return the chat as plain values, for a storage."""
        return {
            "turns": [{"question": t.question, "reply": dict(vars(t.reply))} for t in self.turns],
            "left_out": self.left_out,
            "tokens_per_character": self.tokens_per_character,
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Conversation":
        """Read what `dump` wrote; a reply that was running then counts as stopped."""
        names = {f.name for f in fields(Reply)}
        turns = []
        for item in stored.get("turns", ()):
            reply = Reply(**{k: v for k, v in item["reply"].items() if k in names})
            if reply.state == "running":
                reply.state = "stopped"
            turns.append(Turn(item["question"], reply))
        return cls(
            turns,
            int(stored.get("left_out", 0)),
            float(stored.get("tokens_per_character", cls.tokens_per_character)),
        )
