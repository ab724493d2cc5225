"""uvicorn's web socket protocol, with bounds on its messages and on waiting for the client."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import (
    FrameTooLargeError,
    WebsocketBuffer,
    WSProtocol,
)
from wsproto.events import BytesMessage, Ping, TextMessage

from ui.limits import PARTIAL_BYTES
from ui.server.connections import OPEN_CONNECTIONS
from ui.server.deadline import WriteDeadline

log = logging.getLogger("pibloom.ui.server")


class PartialMessage(WebsocketBuffer):
    """A socket message that is still arriving; all of them together are bounded too."""

    held = 0  # bytes of all of them

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._parts: list[str | bytes] = []

    def extend(self, event: TextMessage | BytesMessage) -> None:
        """Keep a part; raises `FrameTooLargeError` beyond either bound."""
        data = bytes(event.data) if isinstance(event, BytesMessage) else event.data
        size = len(data if isinstance(data, bytes) else data.encode())
        self._parts.append(data)
        self.length += size
        PartialMessage.held += size
        if self.length > self.max_length or PartialMessage.held > PARTIAL_BYTES:
            raise FrameTooLargeError

    def clear(self) -> None:
        """Forget the message."""
        PartialMessage.held -= self.length
        self._parts = []
        self.length = 0

    def to_message(self) -> Any:
        """Return the whole message."""
        if isinstance(self._parts[0], bytes):
            return {"type": "websocket.receive", "bytes": b"".join(self._parts)}  # type: ignore[arg-type]
        return {"type": "websocket.receive", "text": "".join(self._parts)}  # type: ignore[arg-type]


class ChatWebSocketProtocol(WriteDeadline, WSProtocol):
    """uvicorn's web socket protocol, with bounds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.buffer = PartialMessage(self.config.ws_max_size)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the place that the HTTP connection had."""
        super().connection_made(transport)
        OPEN_CONNECTIONS.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place, and the message that was arriving."""
        OPEN_CONNECTIONS.remove(self.transport)
        self.buffer.clear()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read the bytes; what is not a frame ends the connection."""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except Exception:  # the libraries raise many kinds for frames that they do not expect
            log.info("A socket was ended: its bytes are not frames.")
            self.transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """End the connection, also when the client reads nothing any more."""
        super().on_task_complete(task)
        self.loop.call_later(self.close_timeout + 5, self.transport.abort)

    def handle_ping(self, event: Ping) -> None:
        """Answer, unless the client reads no answers."""
        if self.writable.is_set():
            super().handle_ping(event)
