"""Serve `generate` on a fake engine: python -m tests.functions.fake_server PORT REPLY SECONDS.

SECONDS is the pause before each step of the engine; STEPS_FILE gets one byte a step. Loading takes
LOAD_SECONDS, and fails with LOAD_ERROR where that is set.
"""

import os
import sys
import time

from functions import http, server, worker
from model import loader
from model.errors import ModelError
from tests.fakes import FakeEngine, byte_tokenizer, fake_model


def main() -> None:
    port, reply, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    steps = os.open(os.environ.get("STEPS_FILE", os.devnull), os.O_WRONLY | os.O_APPEND)

    def before_step() -> None:
        os.write(steps, b".")
        time.sleep(seconds)  # stands for the engine's work

    def load(path: object, **options: object) -> loader.Model:
        time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))
        if message := os.environ.get("LOAD_ERROR"):
            raise ModelError(message)
        engine = FakeEngine(byte_tokenizer().ids(reply))
        engine.before_step = before_step
        return fake_model(engine, **options)

    http.BODY_SECONDS = float(os.environ.get("BODY_SECONDS", "10"))
    worker.HEAD_SECONDS = float(os.environ.get("HEAD_SECONDS", "10"))
    worker.GONE_SECONDS = float(os.environ.get("GONE_SECONDS", "30"))
    loader.load = load
    server.serve("generate", "127.0.0.1", port)


if __name__ == "__main__":
    main()
