"""A chat as data: its turns, what of it fits into the model's context, and how it is stored."""

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
    tokens_per_character: float = 0.5  # a guess, until the model has counted

    def messages(self, draft: str | None = None) -> list[dict[str, str]]:
        """Return what to send for a reply to the last turn, or to a `draft` after it.

        A turn that got no reply is left out: a model that was taught to alternate would stumble.
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

    def learn(self, prompt_tokens: int) -> None:
        """Take in how many tokens the model counted in what `messages` returns."""
        if prompt_tokens > 0:
            self.tokens_per_character = prompt_tokens / max(1, self._characters())

    def make_room(self, limit: int) -> bool:
        """Leave out oldest turns until about `limit` tokens remain; tell whether any went.

        The last turn always stays: it is the question.
        """
        before = self.left_out
        while (
            self.left_out < len(self.turns) - 1
            and self._characters() * self.tokens_per_character > limit
        ):
            self.left_out += 1
        return self.left_out > before

    def leave_out_one(self) -> bool:
        """Leave out the oldest turn still sent; False when only the question remains."""
        if self.left_out >= len(self.turns) - 1:
            return False
        self.left_out += 1
        return True

    @property
    def tokens(self) -> int:
        """How many tokens the chat filled when the model last answered; 0 before that."""
        for turn in reversed(self.turns[self.left_out :]):
            if turn.reply.prompt_tokens:
                return turn.reply.prompt_tokens + turn.reply.tokens
        return 0

    @property
    def characters(self) -> int:
        """How long all that is kept of the chat is."""
        return sum(len(turn.question) + len(turn.reply.text) for turn in self.turns)

    def _characters(self) -> int:
        # Each message costs a few characters of the chat template besides its own.
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
        """Read what `dump` wrote; a reply that was running then was cut by leaving the page."""
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
