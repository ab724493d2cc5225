"""Streams of completions and chat completions: chunks as server-sent events."""

from collections.abc import Iterator, Sequence

from functions import sse
from functions.generate.openai.replies import ReplyFormat
from functions.generate.streams import Found
from functions.generate.written import WrittenReply
from model.serving import events


def chunks(
    found: Iterator[Found],
    replies: Sequence[WrittenReply],
    form: ReplyFormat,
    *,
    include_usage: bool,
) -> Iterator[bytes]:
    """Yield the chunks of a stream, then `[DONE]`; b"" where there is nothing to send yet.

    `found` holds the events of `replies`. With `include_usage`, a chunk without choices has the
    usage at the end, and `usage` is null in all others.
    """

    def chunk(choice: object) -> bytes:
        return sse.data(form.chunk([choice], **({"usage": None} if include_usage else {})))

    for index, reply in enumerate(replies):
        if (first := form.first(index, reply)) is not None:
            yield chunk(first)
    for each in found:
        if each is None:
            yield b""
            continue
        index, event = each
        replies[index].take(event)
        text, tokens = replies[index].take_unsent()
        new = bool(text or (tokens and form.logprobs))
        yield chunk(form.piece(index, text, tokens)) if new else b""
        if isinstance(event, events.Done):
            yield chunk(form.last(index, event))
    if include_usage:
        yield sse.data(form.chunk([], **form.usage(replies)))
    yield sse.DONE
