"""Server-sent events, read by a client's own parser."""

import httpx
from httpx_sse import EventSource

from functions import sse


def test_events_are_what_a_client_reads() -> None:
    stream = b"".join(
        [
            sse.OPENING,
            sse.event("token", {"text": "a\nb\r\n\u2028"}),
            sse.HEARTBEAT,
            sse.data({"text": "data: x\n\n"}),
            sse.DONE,
        ]
    )
    response = httpx.Response(200, headers=sse.HEADERS, content=stream)
    first, second, last = EventSource(response).iter_sse()
    assert (first.event, first.json()) == ("token", {"text": "a\nb\r\n\u2028"})
    assert (second.event, second.json()) == ("message", {"text": "data: x\n\n"})
    assert last.data == "[DONE]"
