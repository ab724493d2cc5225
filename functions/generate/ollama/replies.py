"""Replies as Ollama's routes write them, whole and as lines of JSON."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from functions.generate.logprobs import token_logprob
from functions.generate.ollama.schemas import (
    OllamaBody,
    OllamaChatBody,
    OllamaChatReply,
    OllamaGenerateReply,
    OllamaReply,
    OllamaReplyMessage,
)
from functions.generate.streams import Found
from functions.generate.written import PlacedToken, WrittenReply
from model.load import LoadedModel

TAG = ":latest"  # what a name without a tag means


def tagged(name: str) -> str:
    """Return a model's name with a tag, as Ollama's clients expect it."""
    return name if ":" in name else name + TAG


def now() -> str:
    """Return the time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(value: object) -> bytes:
    """Return a line of a stream."""
    return msgspec.json.encode(value) + b"\n"


class OllamaWriter:
    """Writes one reply: its text in a message for /api/chat, or as it is for /api/generate."""

    def __init__(self, model: LoadedModel, body: OllamaBody, *, is_chat: bool) -> None:
        """Take a request; `is_chat`: its prompt is a conversation, whichever route it came by."""
        self.reply = WrittenReply(is_chat=is_chat)
        self._model, self._body = model, body
        self._name = body.model or tagged(model.info.name)

    def stream(self, found: Iterator[Found]) -> Iterator[bytes]:
        """Yield the stream's lines; b"" where there is nothing to send yet.

        `found` holds the events of the one generation that writes the reply.
        """
        for each in found:
            if each is not None:
                self.reply.take(each[1])
            text, tokens = self.reply.take_unsent()
            logprobs = self._logprobs(tokens)
            yield line(self._write(text, done=False, **logprobs)) if text or logprobs else b""
        yield line(self._write("", **self._end()))

    def heartbeat(self) -> bytes:
        """Return a line that only says that the stream lives."""
        return line(self._write("", done=False))

    def whole(self) -> OllamaReply:
        """Return the whole answer; the reply must be done."""
        return self._write(self.reply.text, **self._logprobs(self.reply.tokens), **self._end())

    def without_prompt(self) -> OllamaReply:
        """Return the answer to a request that only asks for the model to be loaded."""
        return self._write("", done=True, done_reason="load")

    def _write(self, text: str, **fields: Any) -> OllamaReply:
        if isinstance(self._body, OllamaChatBody):
            message = OllamaReplyMessage(role="assistant", content=text)
            return OllamaChatReply(self._name, now(), message, **fields)
        return OllamaGenerateReply(self._name, now(), text, **fields)

    def _logprobs(self, placed: Sequence[PlacedToken]) -> dict[str, Any]:
        if not (self._body.logprobs and placed):
            return {}
        return {"logprobs": [token_logprob(self._model, each.token) for each in placed]}

    def _end(self) -> dict[str, Any]:
        done = self.reply.done
        assert done is not None
        return {
            "done": True,
            "done_reason": done.finish_reason,
            "total_duration": _nanoseconds(done.queued_s + done.prefill_s + done.decode_s),
            "load_duration": _nanoseconds(done.queued_s),  # as with Ollama, waiting is part of it
            "prompt_eval_count": done.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(done.prefill_s),
            "eval_count": done.completion_tokens,
            # Clients divide by it, and show no speed where it is 0.
            "eval_duration": _nanoseconds(done.decode_s) if done.tokens_per_second else 0,
        }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
