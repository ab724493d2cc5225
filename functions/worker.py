"""gunicorn's threaded worker, held to bounds: of connections, of threads, and of time.

A connection has a thread only while a request of it is read and answered. Otherwise it waits on the
poller: for its first byte (pending), for its next request (kept alive), or for its client to close
after the last reply (parting). Where connections get scarce, those that wait make way for new ones.
Probes have threads and places of their own, so that they are answered whatever else goes on.
"""

import contextlib
import errno
import io
import itertools
import logging
import math
import os
import re
import resource
import secrets
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidChunkSize,
    InvalidHeader,
    InvalidHTTPVersion,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import http_date
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from functions import errors, memory
from functions.errors import ApiError
from functions.http import late_bodies

SLOW = 16  # threads that may wait for heads that come in pieces; who comes then is turned away
PROBE_THREADS = 2
PROBE_PLACES = 8  # connections beyond the usual number, of which only probes are answered
# Descriptors for everything but connections: the model, logs, the poller, what /proc tells.
OTHER_FILES = 24
# Seconds that a client may take no byte of its reply, or not be there at all.
GONE_SECONDS = 30.0
HEAD_SECONDS = 10.0  # for a request's head to arrive
SILENT_SECONDS = 1.0  # after which a connection without a byte makes way before all others
LINGER_SECONDS, LINGER_BYTES = 2.0, 4 << 20  # for a client to close its side after the last reply
ACCEPT_PAUSE = 0.2  # seconds without new connections when the system has no room for one
HEAD_BYTES = 64 << 10  # of a request that are looked at before it gets a thread
# Of a chunked body: so many may be of any size, and the others of so many bytes on average. One of
# a single byte takes as long as one of thousands.
SMALL_CHUNKS, CHUNK_BYTES = 16_384, 64

_END_OF_HEAD = re.compile(rb"\r\n\r\n|\n\n")
# A whole head, without a body, so that answering it waits for nothing.
_PROBE = re.compile(
    rb"(?:GET|HEAD) /(?:healthz|readyz)[ /?]"
    rb"(?:(?!\r\ncontent-length:|\r\ntransfer-encoding:|\r\nexpect:).)*?\r\n\r\n",
    re.DOTALL | re.IGNORECASE,
)
# RFC 9110, section 7.2; a name, an IPv4 or an IPv6 address, and a port. It may be empty.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)

log = logging.getLogger(__name__)


class Pool(ThreadPoolExecutor):
    """Threads that answer; where the system grants no further one, those there are go on."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.submit(lambda: None).result()  # the first, or else nothing could be served

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # can't start new thread
            if not self._threads:
                raise


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, within bounds, and with errors in the shape all others have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.longest = math.inf  # seconds that a request may take, its reply's last byte included
        self._until: dict[Any, float] = {}  # when each connection must have given its thread back
        self._parting: dict[Any, int] = {}  # bytes that may still be read of each
        self._orphan = False
        self._slow = threading.BoundedSemaphore(SLOW)
        self._accept_again = 0.0
        self._usual: int = self.cfg.worker_connections

    def init_process(self) -> None:
        """Count the connections that there are descriptors for, then serve."""
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _open_files() - OTHER_FILES
        self._usual = max(1, min(self.cfg.worker_connections, free - PROBE_PLACES))
        self.worker_connections = self._usual + PROBE_PLACES
        self.max_keepalived = self.worker_connections  # the oldest make way
        self._probe_pool = Pool(PROBE_THREADS, "probe")
        super().init_process()

    def get_thread_pool(self) -> Pool:
        """Make the threads that answer requests."""
        return Pool(self.cfg.threads, "request")

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for what happens on connections; no error of one of them ends the loop."""
        while self.nr_conns >= self._usual and self._make_way():
            pass
        pause = self._accept_again - time.monotonic()
        for key, _ in self.poller.select(min(timeout, pause) if pause > 0 else timeout):
            try:
                key.data(key.fileobj)
            except Exception as error:
                log.error("a connection failed: %s", type(error).__name__, exc_info=error)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Let new connections in, or not; the main loop asks each time around."""
        super().set_accept_enabled(enabled and time.monotonic() >= self._accept_again)

    def accept(self, listener: Any) -> None:
        """Take a new connection; it gets a thread once it has sent something."""
        try:
            client, address = listener.accept()
        except OSError as error:
            # Linux also tells here of connections that have failed already.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._make_way(must=True)
                self._accept_again = time.monotonic() + ACCEPT_PAUSE
                self.set_accept_enabled(False)  # it would be told again at once, and for ever
            return
        try:
            conn = TConn(self.cfg, client, address, listener.getsockname())
        except Exception:
            client.close()
            raise
        self.nr_conns += 1
        conn.since = time.monotonic()
        conn.surplus = self.nr_conns > self._usual
        try:
            _notice_who_is_gone(client)
            if _peek(conn) is None:
                self._await(conn)
            else:
                conn.data_ready = True
                self.enqueue_req(conn)
        except Exception:
            self._close(conn)
            raise

    def enqueue_req(self, conn: Any) -> None:
        """Have a connection's next request answered by a thread."""
        probe = _PROBE.match(_peek(conn) or b"") and not _read_ahead(conn)
        if conn.surplus and not probe:
            refusal = errors.Overloaded("too many connections are open", retry_after=1)
            self._refuse(conn, refusal)
            self._part(conn)
            return
        future = (self._probe_pool if probe else self.tpool).submit(self.handle, conn)
        future.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        """Go on with a connection that a thread is done with; called in the main loop."""
        try:
            keep = False if fs.cancelled() or fs.exception() else fs.result()
            if keep is _DEFER and self.alive:
                self._await(conn)
            elif keep is True:
                super().finish_request(conn, fs)
            else:
                self._part(conn)
        except Exception:
            self._close(conn)
            raise

    def handle(self, conn: Any) -> Any:
        """Answer a connection's next request; tells whether another may follow."""
        if not _skip_empty_lines(conn):
            return conn.initialized or _DEFER
        slow = _head_is_torn(conn)
        if slow and not self._slow.acquire(blocking=False):
            self._refuse(
                conn,
                errors.TooManyUploads("too many requests are being sent at once", retry_after=1),
            )
            return False
        self._until[conn] = time.monotonic() + HEAD_SECONDS
        try:
            return bool(super().handle(conn))
        finally:
            self._until.pop(conn, None)
            if slow:
                self._slow.release()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head is there."""
        self._until[conn] = time.monotonic() + self.longest
        _check_head(req)
        req.version = min(req.version, (1, 1))  # the newest that is spoken here
        # An upgrade may be passed over (RFC 9110, section 7.8); Flask would refuse the request.
        req.headers = [(name, value) for name, value in req.headers if name != "UPGRADE"]
        req.body = body = Content(req, conn.sock)
        asked_to_close = req.should_close
        req.should_close = lambda: asked_to_close() or not body.ended
        try:
            return super().handle_request(req, conn)
        except TimeoutError:  # the kernel gave it up; gunicorn would log a traceback
            return False

    def is_parent_alive(self) -> bool:
        """Drain as at SIGTERM when the master was killed; gunicorn would not drain first."""
        if not self._orphan and not super().is_parent_alive():
            self._orphan = True
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    def murder_pending(self) -> None:
        """Part with those that take too long; the main loop asks at least once a second."""
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn in self._parting if now > conn.timeout]:
            self._close(conn)
        late = [conn.sock for conn, until in list(self._until.items()) if now > until]
        for connection in late:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for connection in late_bodies(now):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        memory.give_back(now)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP; gunicorn's own answer is HTML and its log shows the request."""
        error = _api_error(exc)
        request_id = secrets.token_hex(16)
        fields = {"status": error.status, "request_id": request_id}
        if isinstance(exc, ParseException):
            log.warning("no HTTP: %s", type(exc).__name__, extra={"fields": fields})
        else:
            name = type(exc).__name__
            log.error("a request failed: %s", name, exc_info=exc, extra={"fields": fields})
        error.headers["X-Request-Id"] = request_id
        self._count(error)
        _send(error, client, with_body=getattr(req, "method", None) != "HEAD")

    def _refuse(self, conn: Any, error: ApiError) -> None:
        self._count(error)
        _send(error, conn.sock)

    def _count(self, error: ApiError) -> None:
        answered = self.wsgi.extensions["pibloom.answered"]
        answered.add(path="other", method="other", code=str(error.status))

    def _await(self, conn: Any) -> None:
        """Wait for a new connection's first byte."""
        conn.sock.setblocking(False)
        conn.timeout = conn.since + HEAD_SECONDS
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def _part(self, conn: Any) -> None:
        """Close a connection once its client has, or has had the time to.

        Closed at once, with bytes of the client's on the way, it would be reset, and the client
        might never see the last reply (RFC 9112, section 9.6).
        """
        conn.sock.setblocking(False)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self._close(conn)
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self._parting[conn] = LINGER_BYTES
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: Any, _: object) -> None:
        try:
            read = len(conn.sock.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            read = 0
        self._parting[conn] -= read
        if not read or self._parting[conn] <= 0:
            self._close(conn)

    def _make_way(self, *, must: bool = False) -> bool:
        """Close the connection that can best be missed; tells whether there was one."""
        silent = self.pending_conns
        # Who has just come is about to send its request, and goes only if there is no other way.
        old = bool(silent) and time.monotonic() - silent[0].since > SILENT_SECONDS
        must = must or self.nr_conns >= self.worker_connections
        waiting = [self._parting, *[silent] * old, self.keepalived_conns, *[silent] * must]
        for conn in itertools.chain(*waiting):
            # What has sent something by now is not idle, but about to be served.
            if conn in self._parting or _peek(conn) is None:
                self._close(conn)
                return True
        return False

    def _close(self, conn: Any) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self.poller.unregister(conn.sock)
        for waiting in (self.pending_conns, self.keepalived_conns):
            with contextlib.suppress(ValueError):
                waiting.remove(conn)
        self._parting.pop(conn, None)
        self.nr_conns -= 1
        conn.close()


class Content(io.RawIOBase):
    """A request's body as it is read, and whether it was to its end.

    Where it was not, the connection cannot be used again. A client that waits to be asked for the
    body (Expect: 100-continue) is asked when it is first read, so that a request that is refused by
    its head alone is never asked.
    """

    def __init__(self, req: Any, connection: socket.socket) -> None:
        super().__init__()
        self._body, self._connection = req.body, connection
        self._expected, req._expected_100_continue = req._expected_100_continue, False
        reader = self._body.reader
        self._left = reader.length if isinstance(reader, LengthReader) else math.inf
        if isinstance(reader, ChunkedReader):
            reader.parser = _chunks(reader.parser)

    @property
    def ended(self) -> bool:
        """Whether it was read to its end."""
        return not self._left

    def readable(self) -> bool:
        """Tell that it can be read, as files do."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is into a buffer."""
        if self._expected and self._left:
            self._expected = False
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        if data:
            self._left -= len(data)
        elif self._left == math.inf:
            self._left = 0
        return len(data)


def _chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for count, chunk in enumerate(chunks):
        size += len(chunk)
        if count > SMALL_CHUNKS + size // CHUNK_BYTES:
            raise InvalidChunkSize(b"too many small chunks")
        yield chunk


def _check_head(req: Any) -> None:
    """Refuse what gunicorn lets pass: RFC 9112, sections 3.2 and 6.1."""
    given = [value for name, value in req.headers if name == "HOST"]
    if (req.version >= (1, 1) and not given) or not all(map(_HOST.fullmatch, given)):
        raise InvalidHeader("HOST", req=req)
    for name, value in req.headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise UnsupportedTransferCoding(value)


def _api_error(exc: Exception) -> ApiError:
    match exc:
        case LimitRequestLine():
            return errors.TargetTooLong("the request's first line is too long")
        case LimitRequestHeaders():
            return errors.HeadersTooLarge("the request's headers are too many or too long")
        case ExpectationFailed():
            return errors.ExpectationFailed("of what Expect may ask, only 100-continue is done")
        case UnsupportedTransferCoding():
            return errors.UnsupportedTransferCoding("of Transfer-Encoding, only chunked is done")
        case InvalidHTTPVersion(version=(int(), int())) | InvalidRequestLine(req="PRI * HTTP/2.0"):
            return errors.UnsupportedVersion("the version of HTTP must be 1.0 or 1.1")
        case InvalidHeader(hdr="HOST"):
            return errors.BadRequest("exactly one Host header is needed, with a host and its port")
        case ParseException():
            return errors.BadRequest("the request is not well-formed HTTP")
    return ApiError("the server failed to answer this request")


def _send(error: ApiError, client: socket.socket, *, with_body: bool = True) -> None:
    """Answer where there is no request to answer to."""
    body = msgspec.json.encode(error.body())
    headers = error.headers | {
        "Date": http_date(),
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    with contextlib.suppress(OSError):
        client.sendall(head + body if with_body else head)


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return OTHER_FILES


def _peek(conn: Any) -> bytes | None:
    """Return what has arrived, without taking it: nothing at the end, None while there is none."""
    try:
        found: bytes = conn.sock.recv(HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return found
    except BlockingIOError:
        return None
    except OSError:  # a reset; reading it will tell
        return b""


def _read_ahead(conn: Any) -> bytes:
    """Return what was read behind a connection's last request."""
    found: bytes = conn.parser.unreader.buf.getvalue() if conn.initialized else b""
    return found


def _skip_empty_lines(conn: Any) -> bool:
    """Drop empty lines in front of a request (RFC 9112, section 2.2); is anything left?"""
    if ahead := _read_ahead(conn):
        conn.parser.unreader.take_buffered()
        conn.parser.unreader.unread(ahead := _without_empty_lines(ahead))
    if ahead:
        return True
    there = _peek(conn)
    if there and (empty := len(there) - len(_without_empty_lines(there))):
        conn.sock.recv(empty)
        there = _peek(conn)
    return there is not None


def _without_empty_lines(data: bytes) -> bytes:
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data


def _head_is_torn(conn: Any) -> bool:
    """Whether only a part of a request's head is there, so that reading it would wait."""
    there = _read_ahead(conn) + (_peek(conn) or b"")
    return bool(there) and not _END_OF_HEAD.search(there)


def _notice_who_is_gone(connection: socket.socket) -> None:
    """Have the kernel end a connection whose other end vanished, or takes nothing more."""
    probe = max(1, round(GONE_SECONDS / 3))
    options = {
        "TCP_KEEPIDLE": probe,
        "TCP_KEEPINTVL": probe,
        "TCP_USER_TIMEOUT": round(GONE_SECONDS * 1000),
    }
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
