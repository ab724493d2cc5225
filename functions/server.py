"""Serving a function under gunicorn: one process, many threads, streams that end properly."""

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

import functions_framework
import msgspec
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from functions import logs
from functions.errors import ApiError, BadRequest, TooManyUploads
from functions.http import BODIES
from functions.service import Service
from functions.settings import Settings

FUNCTIONS = ("generate", "tokenize")
PROBES = 8  # threads beyond those that generations can hold, so that a probe never waits for one
SLOW = 16  # threads that may wait for heads that come in pieces; who comes then is turned away
# Seconds; longer than the proxies in front keep theirs, or they would meet closed sockets.
KEEPALIVE = 620
IDLE_CONNECTIONS = 1000  # kept alive beside those that are being answered
# Seconds that an engine that hangs, and then the last events, may need after the grace period.
AFTER_GRACE = 15
FIRST_BYTE_SECONDS = 0.05  # that a thread waits for it
HEAD_SECONDS = 10.0  # for a request's head to arrive
# Seconds that a client may take no byte of its reply, or not be there at all.
GONE_SECONDS = 30.0
LINGER_SECONDS = 2.0  # for a client to close its side of a connection that has ended

log = logging.getLogger(__name__)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, which gives its threads to no client for longer than it may.

    And with errors in the shape that all others have.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.longest = math.inf  # seconds that a request may take, its reply's last byte included
        self._until: dict[Any, float] = {}  # when each connection must have given its thread back
        self._orphan = False
        self._slow = threading.BoundedSemaphore(SLOW)

    def handle(self, conn: Any) -> Any:
        """Answer a connection's next request; tells whether another may follow."""
        if not conn.initialized:
            _notice_who_is_gone(conn.sock)
            if not conn.data_ready and not conn.wait_for_data(FIRST_BYTE_SECONDS):
                return _DEFER  # gunicorn's own way to wait for it without a thread
        slow = _head_is_torn(conn)
        if slow and not self._slow.acquire(blocking=False):
            refusal = TooManyUploads("too many requests are being sent at once", retry_after=1)
            _send(refusal, conn.sock)
            with contextlib.suppress(OSError):
                conn.sock.recv(65536, socket.MSG_DONTWAIT)  # what is unread would undo the answer
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RDWR)  # or the main loop would linger for each
            return False
        self._until[conn] = time.monotonic() + HEAD_SECONDS
        try:
            keep = super().handle(conn)
        finally:
            self._until.pop(conn, None)
            if slow:
                self._slow.release()
        if not keep:
            _linger(conn.sock)
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head is there."""
        self._until[conn] = time.monotonic() + self.longest
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
        """Part with those that hold a thread for too long; the main loop asks once a second."""
        now = time.monotonic()
        for conn in self.pending_conns:  # of which no byte has come
            conn.timeout = min(conn.timeout, now + HEAD_SECONDS)
        super().murder_pending()
        if self.nr_conns >= self.worker_connections and self.keepalived_conns:
            self.keepalived_conns[0].timeout = now  # make room: its client can come again
            self.murder_keepalived()
        for conn, until in list(self._until.items()):
            if now > until:
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP; gunicorn's own answer is HTML and its log shows the request."""
        error: ApiError
        if isinstance(exc, LimitRequestLine | LimitRequestHeaders):
            error = BadRequest("the request's first line or headers are too long")
        elif isinstance(exc, ParseException):
            error = BadRequest("the request is not well-formed HTTP")
        else:
            error = ApiError("the server failed to answer this request")
        request_id = secrets.token_hex(16)
        fields = {"status": error.status, "request_id": request_id}
        if isinstance(error, BadRequest):
            log.warning("no HTTP: %s", type(exc).__name__, extra={"fields": fields})
        else:
            name = type(exc).__name__
            log.error("a request failed: %s", name, exc_info=exc, extra={"fields": fields})
        answered = self.wsgi.extensions["pibloom.answered"]
        answered.add(path="other", method="other", code=str(error.status))
        error.headers["X-Request-Id"] = request_id
        _send(error, client)


def _send(error: ApiError, client: socket.socket) -> None:
    """Answer where there is no request to answer to."""
    body = msgspec.json.encode(error.body())
    headers = error.headers | {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with contextlib.suppress(OSError):
        client.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + body)


def _head_is_torn(conn: Any) -> bool:
    """Whether only a part of a request's head is there, so that reading it would wait."""
    there: bytes = conn.parser.unreader.buf.getvalue() if conn.initialized else b""
    with contextlib.suppress(OSError):
        there += conn.sock.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return bool(there) and b"\r\n\r\n" not in there and b"\n\n" not in there


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


def _linger(connection: socket.socket) -> None:
    """Wait in a thread for a client to close its side; gunicorn would in its main loop, for all."""
    until, left = time.monotonic() + LINGER_SECONDS, 65536
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (wait := until - time.monotonic()) > 0:
            connection.settimeout(wait)
            if not (read := len(connection.recv(4096))):
                break
            left -= read
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # so that gunicorn finds the end at once


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, told what to serve; everything else of its configuration is fixed here."""

    def __init__(
        self, source: Path, target: str, bind: str, settings: Settings, *, reload: bool = False
    ) -> None:
        self._source, self._target = source, target
        self._bind, self._settings, self._reload = bind, settings, reload
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; its own files and environment variables are not read."""
        settings = self._settings
        threads = settings.max_batch + settings.max_queue + PROBES + SLOW + BODIES
        options = {
            "bind": self._bind,
            "worker_class": "functions.server.Worker",
            "workers": 1,  # one copy of the model on a node; Knative adds replicas
            "threads": threads,
            "worker_connections": threads + IDLE_CONNECTIONS,
            "timeout": 120,  # of a worker that hangs; a long stream does not count
            "graceful_timeout": math.ceil(settings.grace) + AFTER_GRACE,
            "keepalive": KEEPALIVE,
            "control_socket_disable": True,  # it wants a home directory that can be written
            "logconfig_dict": logs.configuration(settings.log_level),
            "reload": self._reload,
            "when_ready": _end_at_once_when_asked_twice,
            "post_worker_init": self._started,
            "worker_int": self._interrupted,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the function's app; in the worker, after the fork, so that it may start threads."""
        app: Flask = functions_framework.create_app(self._target, str(self._source))
        _service(app).start()
        return app

    def _started(self, worker: ThreadWorker) -> None:
        """At SIGTERM, first end what runs, and keep answering 503 meanwhile; then stop."""
        worker.longest = self._settings.deadline + GONE_SECONDS
        stop = worker.handle_exit

        def drain(number: int, frame: FrameType | None) -> None:
            def then_stop() -> None:
                try:
                    _service(worker.wsgi).close(self._settings.grace)
                finally:  # also when --reload met a source file that cannot be loaded
                    stop(number, frame)

            threading.Thread(target=then_stop, name="drain", daemon=True).start()

        signal.signal(signal.SIGTERM, drain)

    def _interrupted(self, worker: ThreadWorker) -> None:
        _service(worker.wsgi).close(0)


def _end_at_once_when_asked_twice(arbiter: Arbiter) -> None:
    """Make a second SIGTERM do what gunicorn does at a second SIGINT only."""
    stop = signal.getsignal(signal.SIGTERM)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, second)
        if callable(stop):
            stop(number, frame)

    def second(number: int, frame: FrameType | None) -> None:
        arbiter.SIG_QUEUE.put_nowait(signal.SIGQUIT)

    signal.signal(signal.SIGTERM, first)


def _service(app: Any) -> Service[Any]:
    service: Service[Any] = app.extensions["pibloom"]
    return service


def serve(name: str, host: str, port: int, *, reload: bool = False) -> None:
    """Serve a function until a signal ends it; a busy port exits with 1."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    _check_port(host, port)
    source = Path(__file__).parent / name / "main.py"
    Server(source, name, bind, Settings.read(os.environ), reload=reload).run()


def _check_port(host: str, port: int) -> None:
    """Find out before gunicorn does, which would try again for seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"piBLOOM: cannot listen on {host}, port {port}: {error.strerror}")
