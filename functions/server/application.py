"""Serving a function under gunicorn: one process, many threads, streams that end properly."""

import math
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import functions_framework
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from common import ports
from functions import logs, memory
from functions.http.middleware.uploads import BODIES
from functions.server import descriptors, slow_clients, worker
from functions.service import Service
from functions.settings import Settings

# Threads beyond those that generations can hold, so that a short answer never waits.
SPARE_THREADS = 8
# Seconds; longer than the proxies in front keep theirs, or they would meet closed sockets.
KEEPALIVE = 620
IDLE_CONNECTIONS = 1000  # kept alive beside those that are being answered
# Seconds that an engine that hangs, and then the last events, may need after the grace period.
AFTER_GRACE = 15


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured for one function; its own settings are all fixed here."""

    def __init__(
        self, source: Path, target: str, bind: str, settings: Settings, *, reload: bool = False
    ) -> None:
        self._source, self._target = source, target
        self._bind, self._settings, self._reload = bind, settings, reload
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; its own files and environment variables are not read."""
        settings = self._settings
        threads = settings.limits.most_at_once + SPARE_THREADS + slow_clients.SLOW_HEADS + BODIES
        options = {
            "bind": self._bind,
            "worker_class": "functions.server.worker.Worker",
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
        descriptors.raise_limit(
            threads + IDLE_CONNECTIONS + worker.PROBE_PLACES + 2 * descriptors.OTHER_FILES
        )

    def load(self) -> Flask:
        """Make the function's app; in the worker, after the fork, so that it may start threads."""
        app: Flask = functions_framework.create_app(self._target, str(self._source))
        _service(app).start()
        return app

    def _started(self, serving: ThreadWorker) -> None:
        """At SIGTERM, first end what runs, and keep answering 503 meanwhile; then stop."""
        serving.reading.longest = self._settings.deadline + slow_clients.GONE_SECONDS
        asked = threading.Event()

        def drain() -> None:
            asked.wait()
            try:
                _service(serving.wsgi).close(self._settings.grace)
            finally:  # also when --reload met a source file that cannot be loaded
                serving.handle_exit(signal.SIGTERM, None)

        # Started now, because at the end the system may grant no further thread.
        threading.Thread(target=drain, name="drain", daemon=True).start()
        signal.signal(signal.SIGTERM, lambda number, frame: asked.set())

    def _interrupted(self, serving: ThreadWorker) -> None:
        _service(serving.wsgi).close(0)


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
    source = Path(__file__).parents[1] / name / "main.py"
    memory.configure()
    Server(source, name, bind, Settings.read(os.environ), reload=reload).run()


def _check_port(host: str, port: int) -> None:
    """Exit where a port cannot be listened on; gunicorn would try again for seconds."""
    try:
        ports.check_free(host, port)
    except OSError as error:
        sys.exit(f"piBLOOM: cannot listen on {host}, port {port}: {error.strerror}")
