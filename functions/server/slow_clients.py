"""Clients that send, read or close too slowly: what each may hold, and for how long.

A connection has a thread only while a request of it is read and answered. `Reading` bounds how many
threads wait for heads that arrive in pieces, and how long a request may keep its thread. `Closing`
holds connections, without a thread, until their clients close them too.
"""

import contextlib
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from functions.http.middleware import uploads
from functions.server import request_head

SLOW_HEADS = 16  # threads that may wait for heads that arrive in pieces
HEAD_SECONDS = 10.0  # for a request's head to arrive
# Seconds after which a client that takes no byte of its reply, or has vanished, counts as gone.
GONE_SECONDS = 30.0
LINGER_SECONDS, LINGER_BYTES = 2.0, 4 << 20  # for a client to close its side after the last reply


def notice_gone(connection: socket.socket) -> None:
    """Have the kernel end a connection whose client has vanished, or reads nothing any more."""
    interval = max(1, round(GONE_SECONDS / 3))
    options = {
        "TCP_KEEPIDLE": interval,
        "TCP_KEEPINTVL": interval,
        "TCP_USER_TIMEOUT": round(GONE_SECONDS * 1000),
    }
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Reading:
    """The connections that have a thread, and until when each may keep it.

    A thread of the pool writes the entry of its own connection; the main thread reads them all.
    """

    def __init__(self) -> None:
        self.longest = math.inf  # seconds that a request may take, its reply's last byte included
        self._slow_heads = threading.BoundedSemaphore(SLOW_HEADS)
        self._until: dict[Any, float] = {}

    @contextlib.contextmanager
    def head(self, conn: Any) -> Iterator[bool]:
        """Bound the time in which a head arrives; yields False where too many arrive slowly."""
        slow = request_head.is_torn(conn)
        if slow and not self._slow_heads.acquire(blocking=False):
            yield False
            return
        self._until[conn] = time.monotonic() + HEAD_SECONDS
        try:
            yield True
        finally:
            self._until.pop(conn, None)
            if slow:
                self._slow_heads.release()

    def head_arrived(self, conn: Any) -> None:
        """Give a request whose head is there the time that its reply may take."""
        self._until[conn] = time.monotonic() + self.longest

    def end_overdue(self, now: float) -> None:
        """End what takes too long: a whole connection, or only the reading of a body."""
        for connection in [conn.sock for conn, until in list(self._until.items()) if now > until]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for connection in uploads.overdue(now):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)


class Closing:
    """Connections whose last reply is sent, until their clients have closed them.

    A connection that is closed at once, while bytes of the client's are on their way, is reset, and
    the client might never see the last reply (RFC 9112, section 9.6). Of the main thread only.
    """

    def __init__(self, poller: Callable[[], Any], close: Callable[[Any], None]) -> None:
        """`poller` returns the main loop's selector; `close` closes a connection for good."""
        self._poller, self._close = poller, close
        self._bytes_left: dict[Any, int] = {}  # that may still be read of each

    def __iter__(self) -> Iterator[Any]:
        """Yield the connections, the oldest first."""
        return iter(self._bytes_left)

    def __contains__(self, conn: object) -> bool:
        return conn in self._bytes_left

    def add(self, conn: Any) -> None:
        """Close our side, and wait for the client to close its own."""
        conn.sock.setblocking(False)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self._close(conn)
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self._bytes_left[conn] = LINGER_BYTES
        self._poller().register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))

    def discard(self, conn: Any) -> None:
        """Forget a connection that is closed."""
        self._bytes_left.pop(conn, None)

    def end_overdue(self, now: float) -> None:
        """Close the connections whose clients had their time to close them."""
        for conn in [conn for conn in self if now > conn.timeout]:
            self._close(conn)

    def _drain(self, conn: Any, _: object) -> None:
        try:
            read = len(conn.sock.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            read = 0
        self._bytes_left[conn] -= read
        if not read or self._bytes_left[conn] <= 0:
            self._close(conn)
