"""How the chat's connections are served: bounded in number, size and time, and probes come first.

uvicorn bounds none of this by itself. A connection that says nothing makes way for a new one; when
all are busy, further ones are taken for probes only.
"""

import asyncio
import logging
import resource
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.wsproto_impl import (
    FrameTooLargeError,
    WebsocketBuffer,
    WSProtocol,
)
from wsproto.events import BytesMessage, Ping, TextMessage

from ui.limits import (
    CONNECTIONS,
    HEAD_BYTES,
    HEAD_S,
    PARTIAL_BYTES,
    PIPELINED,
    PROBE_CONNECTIONS,
    PROBE_HEAD_S,
    REQUEST_BYTES,
    REQUEST_S,
    SPARE_DESCRIPTORS,
    WRITE_S,
)

PROBE_PATH = "/healthz"
BACKLOG = 128  # so many may be accepted at once, before any of them is counted
SEGMENT_BYTES = 255  # of a path: no file's name is longer

log = logging.getLogger("pibloom.ui.server")


class Places:
    """Which connections there are, and which of them say nothing, the longest silent first."""

    def __init__(self) -> None:
        self.most = CONNECTIONS
        self.taken: set[asyncio.BaseTransport] = set()
        self._silent: OrderedDict[asyncio.BaseTransport, None] = OrderedDict()
        self._for_probes: OrderedDict[asyncio.BaseTransport, None] = OrderedDict()

    def fit(self) -> None:
        """Stay below the limit on open files; raises it as far as the system allows."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = CONNECTIONS + PROBE_CONNECTIONS + BACKLOG + SPARE_DESCRIPTORS
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.most = max(16, min(CONNECTIONS, soft - (wanted - CONNECTIONS)))

    def take(self, transport: asyncio.BaseTransport) -> bool:
        """Count a new connection, and make room for it; False if it is for a probe only."""
        for_all = len(self.taken) < self.most
        if not for_all and self._silent:
            self._end_first(self._silent)
            for_all = True
        if for_all:
            self._silent[transport] = None
        else:
            if len(self._for_probes) >= PROBE_CONNECTIONS:
                self._end_first(self._for_probes)
            self._for_probes[transport] = None
        self.taken.add(transport)
        return for_all

    def _end_first(self, transports: OrderedDict[asyncio.BaseTransport, None]) -> None:
        transport, _ = transports.popitem(last=False)
        self.leave(transport)
        _abort(transport)

    def silent(self, transport: asyncio.BaseTransport) -> None:
        """Note that nothing is being done for a connection."""
        if transport in self.taken and transport not in self._for_probes:
            self._silent[transport] = None

    def busy(self, transport: asyncio.BaseTransport) -> None:
        """Note that a connection has sent a whole head."""
        self._silent.pop(transport, None)

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that has ended."""
        self.taken.discard(transport)
        self._silent.pop(transport, None)
        self._for_probes.pop(transport, None)


PLACES = Places()


class ChatProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with bounds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = ChatSocketProtocol
        self._for_all = True
        self._bytes = 0  # of the request that is being read
        self._in_head = True
        self._answered: RequestResponseCycle | None = None
        self._taken = False  # all requests that this connection may make
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and wait for a head."""
        super().connection_made(transport)
        self._for_all = PLACES.take(transport)
        self._wait(HEAD_S if self._for_all else PROBE_HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        PLACES.leave(self.transport)
        self._wait(None)
        # uvicorn tells the last request only, and the one that is answered would write on.
        for cycle in (self._answered, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as far as the bounds allow; whatever cannot be read ends the connection."""
        if self.transport.is_closing() or self._taken:
            return
        self._bytes += len(data)
        try:
            super().data_received(data)
        except Exception:  # of the libraries, for what they did not expect in a head
            log.info("A connection was ended: its bytes are no HTTP.")
            self.transport.abort()
            return
        too_much = HEAD_BYTES if self._in_head else REQUEST_BYTES
        if self._bytes > too_much and self.transport.get_protocol() is self:
            self.transport.abort()
        elif self._in_head and self._timer is None and not self.transport.is_closing():
            self._wait(HEAD_S)

    def on_message_begin(self) -> None:
        """Begin to count anew."""
        super().on_message_begin()
        self._bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """A whole head is there: from now on the connection is busy, for a bounded time."""
        self._in_head = False
        if len(self.pipeline) >= PIPELINED:
            # Each that waits for its turn takes a hundred times its bytes: these are the last.
            self.cycle.keep_alive = False
            self._taken = True
        if self._taken:
            return
        PLACES.busy(self.transport)
        self._wait(REQUEST_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless it is of a request that is not answered any more."""
        if not self._taken:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request, with the same exception."""
        if not self._taken:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection is idle again, or has the next request already."""
        if self.pipeline:
            self._wait(REQUEST_S)
        else:
            self._bytes, self._in_head = 0, True
            self._wait(WRITE_S)  # uvicorn's own limit is shorter, but ends nothing that is unread
            PLACES.silent(self.transport)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; a socket has its own bounds."""
        self._wait(None)
        PLACES.leave(self.transport)
        if not self._for_all:
            self.transport.abort()
            return
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered, scope = cycle, cycle.scope
        if scope["path"] == PROBE_PATH and scope["method"] in ("GET", "HEAD"):
            app = healthy
        elif not self._for_all:
            app = no_place
        elif not _can_be_served(scope["path"], scope["headers"]):
            app = unusable
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self.transport.abort)


class Partial(WebsocketBuffer):
    """A socket message that is still arriving; all of them together are bounded too."""

    held = 0

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._parts: list[str | bytes] = []

    def extend(self, event: TextMessage | BytesMessage) -> None:
        """Keep a part, as compactly as it came."""
        data = bytes(event.data) if isinstance(event, BytesMessage) else event.data
        size = len(data if isinstance(data, bytes) else data.encode())
        self._parts.append(data)
        self.length += size
        Partial.held += size
        if self.length > self.max_length or Partial.held > PARTIAL_BYTES:
            raise FrameTooLargeError

    def clear(self) -> None:
        """Forget the message."""
        Partial.held -= self.length
        self._parts = []
        self.length = 0

    def to_message(self) -> Any:
        """Return the whole message."""
        if isinstance(self._parts[0], bytes):
            return {"type": "websocket.receive", "bytes": b"".join(self._parts)}  # type: ignore[arg-type]
        return {"type": "websocket.receive", "text": "".join(self._parts)}  # type: ignore[arg-type]


class ChatSocketProtocol(WSProtocol):
    """uvicorn's web socket protocol, with bounds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.buffer = Partial(self.config.ws_max_size)
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the place that the HTTP connection had."""
        super().connection_made(transport)
        PLACES.taken.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        PLACES.leave(self.transport)
        self.buffer.clear()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; whatever cannot be read ends the connection."""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except Exception:  # of the libraries, for frames that they did not expect
            log.info("A socket was ended: its bytes are no frames.")
            self.transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """End the connection for good, also when the client takes nothing any more."""
        super().on_task_complete(task)
        self.loop.call_later(self.close_timeout + 5, self.transport.abort)

    def handle_ping(self, event: Ping) -> None:
        """Answer, unless the client takes no answers."""
        if self.writable.is_set():
            super().handle_ping(event)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()


async def healthy(scope: Any, receive: Any, send: Any) -> None:
    """Answer a probe."""
    await _send(send, 200, b"application/json", b'{"status":"ok"}')


async def no_place(scope: Any, receive: Any, send: Any) -> None:
    """Turn a request away when all places are taken."""
    sentence = b"Too many connections are open. Try again in a moment."
    more = [(b"retry-after", b"5"), (b"connection", b"close")]
    await _send(send, 503, b"text/plain; charset=utf-8", sentence, more)


async def unusable(scope: Any, receive: Any, send: Any) -> None:
    """Turn away a request whose Host or path could name nothing."""
    sentence = b"The Host or the path of this request cannot be."
    await _send(send, 400, b"text/plain; charset=utf-8", sentence, [(b"connection", b"close")])


async def _send(
    send: Any, status: int, kind: bytes, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _can_be_served(path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a Host and a path are such that an address can be made of them."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return False
    try:
        urlsplit(f"//{hosts[0].decode('ascii') if hosts else ''}/").port  # noqa: B018
        parts = [part.encode() for part in path.split("/")]
    except ValueError:  # of which decoding and encoding errors are a kind
        return False
    return path.isprintable() and all(len(part) <= SEGMENT_BYTES for part in parts)


def _abort(transport: asyncio.BaseTransport) -> None:
    if isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "abort"):
        transport.abort()  # uvloop's transports are of no class of asyncio's
