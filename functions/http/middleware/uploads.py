"""The bodies of requests: of bounded size, arriving in bounded time, and few large ones at once."""

import functools
import socket
import threading
import time

from flask import Request, Response, g
from werkzeug.exceptions import RequestEntityTooLarge

from functions import memory
from functions.errors import BodyIncomplete, BodyTooLarge, TooManyUploads

BODY_SECONDS = 10.0  # for a request's body to arrive
BODIES = 32  # that may be arriving at once; most are there with their head
LARGE = 64 << 10  # bytes; a body or an answer with more counts as large
LARGE_BODIES = 4  # of the largest size that may be held at once, or more that are smaller
PATIENCE = 0.5  # seconds that a body waits for room
# By when each body must be there. The thread that reads a body writes its entry, and the server's
# main thread reads them all.
_arriving: dict[socket.socket, float] = {}


class ByteBudget:
    """Bytes of memory that many requests share; their threads may use it at once."""

    def __init__(self, total: int) -> None:
        self.total = self._free = total
        self._changed = threading.Condition()

    def take(self, count: int, seconds: float) -> bool:
        """Take some bytes, waiting up to `seconds` for them; tells whether they were free.

        More than the budget has is taken as the whole budget.
        """
        with self._changed:
            free = self._changed.wait_for(lambda: min(count, self.total) <= self._free, seconds)
            self._free -= min(count, self.total) if free else 0
            return free

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._free += min(count, self.total)
            self._changed.notify_all()


class Uploads:
    """Receives the bodies of requests, each of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._large = ByteBudget(LARGE_BODIES * limit)
        # Bodies that arrive slowly must leave threads to others.
        self._places = threading.BoundedSemaphore(BODIES)

    def receive(self, request: Request) -> None:
        """Read a request's body, and keep it in the request; raises the fitting `ApiError`.

        Every path needs it: functions-framework reads a body that no route has read, without a
        limit. A large body has a share of the budget until `release`.
        """
        length = request.content_length
        if length is not None and length > self._limit:
            raise BodyTooLarge(
                f"the body has {length} bytes; at most {self._limit} are taken",
                limit=self._limit,
                given=length,
            )
        # A chunked body, whose length is not announced, is read up to this and then left.
        request.max_content_length = self._limit + 1
        if not length and "Transfer-Encoding" not in request.headers:
            return
        size = length or self._limit
        if size > LARGE:
            self._reserve(size)
        if not self._places.acquire(timeout=PATIENCE):
            raise TooManyUploads("too many requests are being sent at once", retry_after=1)
        try:
            received = self._read(request, length)
        finally:
            self._places.release()
        if received <= LARGE:
            release()

    def _reserve(self, size: int) -> None:
        if not self._large.take(size, PATIENCE):
            raise TooManyUploads("too many large requests are being sent at once", retry_after=1)

        @functools.cache  # what was taken is given back once
        def give_back() -> None:
            memory.note(size)
            self._large.give_back(size)

        g.release_body = give_back

    def _read(self, request: Request, length: int | None) -> int:
        """Read a body; returns how many bytes it has."""
        connection: socket.socket | None = request.environ.get("gunicorn.socket")
        if connection:
            # A slow body would otherwise hold its thread, and a few of them all threads, for good.
            _arriving[connection] = time.monotonic() + BODY_SECONDS
        try:
            received = len(request.get_data())
        except RequestEntityTooLarge:
            received = self._limit + 1
        except Exception:  # a malformed chunk, a client that left: the server's own errors
            raise BodyIncomplete("the body could not be read to its end") from None
        finally:
            if connection:
                _arriving.pop(connection, None)
        if received > self._limit:
            raise BodyTooLarge(
                f"the body is too large; at most {self._limit} bytes are taken", limit=self._limit
            )
        if length is not None and received < length:
            raise BodyIncomplete(f"the body was announced with {length} bytes, but has {received}")
        return received


def release(*, at_end_of: Response | None = None) -> None:
    """Release the running request's share of the budget, so that others have room.

    Called at the end of a reply at the latest, and sooner where the reply needs nothing of the
    request any more. JSON takes up to thirty times its bytes, ignored fields included, so that a
    request that waits for its turn, or whose reply is being written, still has its share.
    """
    give_back = g.get("release_body")
    if give_back is None:
        return
    if at_end_of is not None and at_end_of.is_streamed:
        at_end_of.call_on_close(give_back)
    else:
        give_back()


def overdue(now: float) -> list[socket.socket]:
    """Return the connections whose body should have arrived; the server ends their reading."""
    return [connection for connection, until in list(_arriving.items()) if now > until]
