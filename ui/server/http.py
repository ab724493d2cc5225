"""uvicorn's HTTP protocol, with bounds on the size, the time and the number of requests."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ui.limits import (
    HEAD_BYTES,
    HEAD_S,
    PIPELINED,
    PROBE_HEAD_S,
    REQUEST_BYTES,
    REQUEST_S,
    WRITE_S,
)
from ui.server import replies
from ui.server.connections import OPEN_CONNECTIONS
from ui.server.deadline import WriteDeadline
from ui.server.websocket import ChatWebSocketProtocol

PROBE_PATH = "/healthz"
SEGMENT_BYTES = 255  # of a path: no file's name is longer

log = logging.getLogger("pibloom.ui.server")


class ChatHttpProtocol(WriteDeadline, HttpToolsProtocol):
    """uvicorn's HTTP protocol, with bounds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = ChatWebSocketProtocol
        self._for_requests = True
        self._bytes = 0  # of the request that is being read
        self._in_head = True
        self._answered: RequestResponseCycle | None = None
        self._full = False  # it has sent all the requests that it may send
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and wait for a head."""
        super().connection_made(transport)
        self._for_requests = OPEN_CONNECTIONS.add(transport)
        self._set_timeout(HEAD_S if self._for_requests else PROBE_HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place, and end what still runs for the client."""
        OPEN_CONNECTIONS.remove(self.transport)
        self._set_timeout(None)
        # uvicorn ends only the last request; the one that is being answered would go on writing.
        for cycle in (self._answered, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read the bytes if the bounds allow it; what is not HTTP ends the connection."""
        if self.transport.is_closing() or self._full:
            return
        self._bytes += len(data)
        try:
            super().data_received(data)
        except Exception:  # the libraries raise many kinds for heads that they do not expect
            log.info("A connection was ended: its bytes are not HTTP.")
            self.transport.abort()
            return
        too_much = HEAD_BYTES if self._in_head else REQUEST_BYTES
        if self._bytes > too_much and self.transport.get_protocol() is self:
            self.transport.abort()
        elif self._in_head and self._timer is None and not self.transport.is_closing():
            self._set_timeout(HEAD_S)

    def on_message_begin(self) -> None:
        """Count the bytes of a new request."""
        super().on_message_begin()
        self._bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the time limit of a request: its whole head is there."""
        self._in_head = False
        if len(self.pipeline) >= PIPELINED:
            # A waiting request takes a hundred times its bytes, so no more are accepted.
            self.cycle.keep_alive = False
            self._full = True
        if self._full:
            return
        OPEN_CONNECTIONS.mark_busy(self.transport)
        self._set_timeout(REQUEST_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of a body on, unless its request will not be answered."""
        if not self._full:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request, unless it will not be answered."""
        if not self._full:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        if self.pipeline:
            self._set_timeout(REQUEST_S)
        else:
            self._bytes, self._in_head = 0, True
            # uvicorn has a shorter limit, but it waits until the client has read everything.
            self._set_timeout(WRITE_S)
            OPEN_CONNECTIONS.mark_silent(self.transport)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the web socket protocol, which has its own bounds."""
        self._set_timeout(None)
        OPEN_CONNECTIONS.remove(self.transport)
        if not self._for_requests:
            self.transport.abort()
            return
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered, scope = cycle, cycle.scope
        if scope["path"] == PROBE_PATH and scope["method"] in ("GET", "HEAD"):
            app = replies.healthy
        elif not self._for_requests:
            app = replies.no_place
        elif not _is_valid_address(scope["path"], scope["headers"]):
            app = replies.unusable
        super()._start_asgi_task(cycle, app)

    def _set_timeout(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self.transport.abort)


def _is_valid_address(path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a Host and a path form a valid address."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return False
    try:
        urlsplit(f"//{hosts[0].decode('ascii') if hosts else ''}/").port  # noqa: B018
        parts = [part.encode() for part in path.split("/")]
    except ValueError:  # of which decoding and encoding errors are a kind
        return False
    return path.isprintable() and all(len(part) <= SEGMENT_BYTES for part in parts)
