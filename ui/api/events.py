"""The events of a streaming reply, and how each is read from the wire."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx_sse

from ui.api import sentences
from ui.api.errors import FunctionError, parse_error


@dataclass(frozen=True)
class LoadingEvent:
    """The function is up and loads its model."""


@dataclass(frozen=True)
class QueuedEvent:
    """The request waits; position 1 is the next one to start."""

    position: int


@dataclass(frozen=True)
class PrefillEvent:
    """The model reads the prompt: `done` of `total` tokens."""

    done: int
    total: int


@dataclass(frozen=True)
class GeneratingEvent:
    """The model starts to write."""


@dataclass(frozen=True)
class TokenEvent:
    """A piece of the reply; `tokens` is how many tokens are written by now."""

    text: str
    tokens: int


@dataclass(frozen=True)
class DoneEvent:
    """The whole reply, and what it took (tokens, tokens a second, seconds)."""

    text: str
    finish_reason: str
    seed: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_second: float
    seconds: float


ReplyEvent: TypeAlias = (
    LoadingEvent | QueuedEvent | PrefillEvent | GeneratingEvent | TokenEvent | DoneEvent
)


def parse_event(raw: httpx_sse.ServerSentEvent) -> ReplyEvent | None:
    """Return the event, or None for a kind that this version of the chat does not know.

    Raises `FunctionError` for an error event, and for data in another form than piBLOOM's.
    """
    try:
        match raw.event:
            case "status":
                return _parse_state(json.loads(raw.data))
            case "token":
                return _parse_token(json.loads(raw.data))
            case "done":
                return _parse_done(json.loads(raw.data))
            case "error":
                error = json.loads(raw.data)["error"]
                raise parse_error(error, int(error["code"]))
            case _:
                return None
    except (ValueError, KeyError, TypeError):
        raise FunctionError("foreign", sentences.UNREADABLE_REPLY) from None


def _parse_state(data: Mapping[str, Any]) -> ReplyEvent | None:
    match data["state"]:
        case "loading":
            return LoadingEvent()
        case "queued":
            return QueuedEvent(int(data["position"]))
        case "prefill":
            return PrefillEvent(int(data["done"]), int(data["total"]))
        case "generating":
            return GeneratingEvent()
        case _:
            return None


def _parse_token(data: Mapping[str, Any]) -> TokenEvent:
    # An older function sends no `tokens`; then each piece counts as one token.
    return TokenEvent(str(data["text"]), int(data.get("tokens", int(data["index"]) + 1)))


def _parse_done(data: Mapping[str, Any]) -> DoneEvent:
    usage, timings = data["usage"], data["timings"]
    milliseconds = timings["queued_ms"] + timings["prefill_ms"] + timings["decode_ms"]
    return DoneEvent(
        text=str(data["text"]),
        finish_reason=str(data["finish_reason"]),
        seed=int(data["seed"]),
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
        tokens_per_second=float(timings["tokens_per_second"] or 0.0),
        seconds=float(milliseconds) / 1000,
    )
