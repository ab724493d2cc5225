"""Serve `generate` on a fake engine: python -m tests.functions.fake_server PORT REPLY SECONDS.

SECONDS is the pause before each step of the engine; STEPS_FILE gets one byte a step. Loading takes
LOAD_SECONDS, and fails with LOAD_ERROR where that is set. MOST_FILES is the limit of open files.
From MOST_THREADS threads on no other is started, as under a limit of processes. ACCEPT_ERRORS are
numbers of errors that accept fails with, each once, before it goes on.
"""

import os
import resource
import socket
import sys
import threading
import time
from typing import Any

from functions.http.middleware import uploads
from functions.server import application, slow_clients
from model import load
from model.errors import ModelError
from model.limits import DEFAULT_LIMITS, Limits
from model.load import LoadedModel
from tests.fakes import FakeEngine, byte_tokenizer, fake_model


def main() -> None:
    port, reply, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    steps = os.open(os.environ.get("STEPS_FILE", os.devnull), os.O_WRONLY | os.O_APPEND)

    def before_step() -> None:
        os.write(steps, b".")
        time.sleep(seconds)  # stands for the engine's work

    def load_fake(
        path: object, *, limits: Limits = DEFAULT_LIMITS, **options: object
    ) -> LoadedModel:
        time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))
        if message := os.environ.get("LOAD_ERROR"):
            raise ModelError(message)
        engine = FakeEngine(byte_tokenizer().ids(reply))
        engine.before_step = before_step
        return fake_model(engine, limits)

    uploads.BODY_SECONDS = float(os.environ.get("BODY_SECONDS", "10"))
    slow_clients.HEAD_SECONDS = float(os.environ.get("HEAD_SECONDS", "10"))
    slow_clients.GONE_SECONDS = float(os.environ.get("GONE_SECONDS", "30"))
    load.load = load_fake
    if most := int(os.environ.get("MOST_FILES", "0")):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    inject_faults()
    application.serve("generate", "127.0.0.1", port)


def inject_faults() -> None:
    most = int(os.environ.get("MOST_THREADS", "1000"))
    failing = [int(number) for number in os.environ.get("ACCEPT_ERRORS", "").split()]
    start, accept = threading.Thread.start, socket.socket.accept

    def start_unless_many(thread: threading.Thread) -> None:
        if threading.active_count() >= most:
            raise RuntimeError("can't start new thread")
        start(thread)

    def accept_after_errors(listener: socket.socket) -> Any:
        if failing:
            raise OSError(failing.pop(0), "injected")
        return accept(listener)

    threading.Thread.start = start_unless_many  # type: ignore[assignment, method-assign]
    socket.socket.accept = accept_after_errors  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main()
