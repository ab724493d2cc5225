"""Replies as piBLOOM's own routes write them, whole and as events."""

from collections.abc import Iterator

from functions import sse
from functions.generate.native.schemas import (
    Generated,
    GeneratingStatus,
    PrefillStatus,
    QueuedStatus,
    TokenEvent,
    Usage,
)
from functions.generate.streams import Found
from functions.generate.timings import timings_of
from functions.generate.written import WrittenReply
from model.load import LoadedModel
from model.serving import events


def generated(model: LoadedModel, reply: WrittenReply) -> Generated:
    """Return the whole answer; the reply must be done."""
    done = reply.done
    assert done is not None
    return Generated(
        text=reply.text,
        finish_reason=done.finish_reason,
        model=model.info.name,
        seed=done.seed,
        usage=Usage(
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            total_tokens=done.prompt_tokens + done.completion_tokens,
            cached_tokens=done.cached_tokens,
        ),
        timings=timings_of(done),
    )


def stream(model: LoadedModel, found: Iterator[Found], reply: WrittenReply) -> Iterator[bytes]:
    """Yield the events of a stream up to `done`; b"" where there is nothing to send yet.

    `found` holds the events of the one generation that writes `reply`.
    """
    pieces = 0
    for each in found:
        if each is None:
            yield b""
            continue
        event = each[1]
        reply.take(event)
        match event:
            case events.Queued(position):
                yield sse.event("status", QueuedStatus(position))
            case events.Prefill(done, total):
                yield sse.event("status", PrefillStatus(done, total))
            case events.Token():
                if len(reply.tokens) == 1:
                    yield sse.event("status", GeneratingStatus())
                text, _ = reply.take_unsent()
                if text:
                    yield sse.event("token", TokenEvent(text, pieces, len(reply.tokens)))
                    pieces += 1
            case events.Done():
                yield sse.event("done", generated(model, reply))
