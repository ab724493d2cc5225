"""Server-sent events, as the HTML standard of the WHATWG defines them (section 9.2)."""

import msgspec

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would otherwise collect the stream
}
OPENING = b": stream\n\n"
HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"  # how OpenAI's streams end


def data(value: object) -> bytes:
    """Encode an event without a name, as OpenAI's streams hold them."""
    return b"data: %s\n\n" % msgspec.json.encode(value)


def event(name: str, data: object) -> bytes:
    """Encode one event; JSON holds no line break, so its data is a single line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
