"""gunicorn's threaded worker, held to bounds: of connections, of threads, and of time.

A connection has a thread only while a request of it is read and answered. Otherwise it waits on the
poller: for its first byte (pending), for its next request (kept alive), or for its client to close
after the last reply (closing). Where connections get scarce, those that wait make way for new ones.
Probes have threads and places of their own, so that they are answered whatever else goes on.

Which thread owns what: `handle`, and `handle_request` and `handle_error` within it, run in a thread
of a pool. Everything else runs in the main thread, which alone changes the fields of `Worker`.
"""

import contextlib
import errno
import itertools
import logging
import os
import secrets
import selectors
import signal
import socket
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from functions import errors, memory
from functions.errors import ApiError
from functions.server import descriptors, refusals, request_head, slow_clients
from functions.server.request_body import RequestBody
from functions.server.threads import ThreadPool

PROBE_THREADS = 2
PROBE_PLACES = 8  # connections beyond the usual number, of which only probes are answered
SILENT_SECONDS = 1.0  # after which a connection without a byte makes way before all others
ACCEPT_PAUSE = 0.2  # seconds without new connections when the system has no room for one

log = logging.getLogger(__name__)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, within bounds, and with errors in the shape all others have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reading = slow_clients.Reading()
        self._closing = slow_clients.Closing(lambda: self.poller, self._close)
        self._orphan = False
        self._accept_again = 0.0  # when, on time.monotonic()'s clock
        self._usual: int = self.cfg.worker_connections

    def init_process(self) -> None:
        """Count the connections that there are descriptors for, then serve."""
        free = descriptors.left_for_connections() - PROBE_PLACES
        self._usual = max(1, min(self.cfg.worker_connections, free))
        self.worker_connections = self._usual + PROBE_PLACES
        self.max_keepalived = self.worker_connections  # the oldest make way
        self._probe_pool = ThreadPool(PROBE_THREADS, "probe")
        super().init_process()

    def get_thread_pool(self) -> ThreadPool:
        """Make the threads that answer requests."""
        return ThreadPool(self.cfg.threads, "request")

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
            # On Linux this may also be the error of a connection that has failed already.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._make_way(must=True)
                self._accept_again = time.monotonic() + ACCEPT_PAUSE
                self.set_accept_enabled(False)  # the poller would report it at once, and for ever
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
            slow_clients.notice_gone(client)
            if request_head.peek(conn) is None:
                self._wait_for_first_byte(conn)
            else:
                conn.data_ready = True
                self.enqueue_req(conn)
        except Exception:
            self._close(conn)
            raise

    def enqueue_req(self, conn: Any) -> None:
        """Have a connection's next request answered by a thread."""
        probe = request_head.is_probe(conn)
        if conn.surplus and not probe:
            self._refuse(conn, errors.Overloaded("too many connections are open", retry_after=1))
            self._closing.add(conn)
            return
        future = (self._probe_pool if probe else self.tpool).submit(self.handle, conn)
        future.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        """Go on with a connection that a thread is done with."""
        try:
            keep = False if fs.cancelled() or fs.exception() else fs.result()
            if keep is _DEFER and self.alive:
                self._wait_for_first_byte(conn)
            elif keep is True:
                super().finish_request(conn, fs)
            else:
                self._closing.add(conn)
        except Exception:
            self._close(conn)
            raise

    def handle(self, conn: Any) -> Any:
        """Answer a connection's next request; tells whether another may follow."""
        if not request_head.skip_empty_lines(conn):
            return conn.initialized or _DEFER
        with self.reading.head(conn) as admitted:
            if admitted:
                return bool(super().handle(conn))
        self._refuse(
            conn, errors.TooManyUploads("too many requests are being sent at once", retry_after=1)
        )
        return False

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head is there."""
        self.reading.head_arrived(conn)
        request_head.check(req)
        req.version = min(req.version, (1, 1))  # the newest that is spoken here
        # An upgrade may be ignored (RFC 9110, section 7.8); Flask would refuse the request.
        req.headers = [(name, value) for name, value in req.headers if name != "UPGRADE"]
        req.body = body = RequestBody(req, conn.sock)
        asked_to_close = req.should_close
        req.should_close = lambda: asked_to_close() or not body.ended
        try:
            return super().handle_request(req, conn)
        except TimeoutError:  # the kernel gave the client up; gunicorn would log a traceback
            return False

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is not HTTP; gunicorn's own answer is HTML and its log shows the request."""
        error = refusals.api_error(exc)
        request_id = secrets.token_hex(16)
        fields = {"status": error.status, "request_id": request_id}
        if isinstance(exc, ParseException):
            log.warning("not HTTP: %s", type(exc).__name__, extra={"fields": fields})
        else:
            name = type(exc).__name__
            log.error("a request failed: %s", name, exc_info=exc, extra={"fields": fields})
        error.headers["X-Request-Id"] = request_id
        self._count(error)
        refusals.send(error, client, with_body=getattr(req, "method", None) != "HEAD")

    def is_parent_alive(self) -> bool:
        """Drain as at SIGTERM when the master was killed; gunicorn would not drain first."""
        if not self._orphan and not super().is_parent_alive():
            self._orphan = True
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    def murder_pending(self) -> None:
        """End what takes too long; the main loop calls this at least once a second."""
        super().murder_pending()
        now = time.monotonic()
        self._closing.end_overdue(now)
        self.reading.end_overdue(now)
        memory.give_back(now)

    def _refuse(self, conn: Any, error: ApiError) -> None:
        self._count(error)
        refusals.send(error, conn.sock)

    def _count(self, error: ApiError) -> None:
        answered = self.wsgi.extensions["pibloom.answered"]
        answered.add(path="other", method="other", code=str(error.status))

    def _wait_for_first_byte(self, conn: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = conn.since + slow_clients.HEAD_SECONDS
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def _make_way(self, *, must: bool = False) -> bool:
        """Close the connection that can best be missed; tells whether there was one."""
        silent = self.pending_conns
        # A client that has just come is about to send its request, and goes only as a last resort.
        old = bool(silent) and time.monotonic() - silent[0].since > SILENT_SECONDS
        must = must or self.nr_conns >= self.worker_connections
        waiting = [self._closing, *[silent] * old, self.keepalived_conns, *[silent] * must]
        for conn in itertools.chain(*waiting):
            # One that has sent something by now is not idle, but about to be served.
            if conn in self._closing or request_head.peek(conn) is None:
                self._close(conn)
                return True
        return False

    def _close(self, conn: Any) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self.poller.unregister(conn.sock)
        for waiting in (self.pending_conns, self.keepalived_conns):
            with contextlib.suppress(ValueError):
                waiting.remove(conn)
        self._closing.discard(conn)
        self.nr_conns -= 1
        conn.close()
