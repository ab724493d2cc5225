"""Servers as processes of their own, for the tests that need the real one."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


Start = Callable[..., "Running"]


class Running:
    """A server process on a fake engine, and the file that counts its steps."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, steps: Path) -> None:
        self.process, self.port, self._steps = process, port, steps

    @property
    def steps(self) -> int:
        return self._steps.stat().st_size

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, stream: bool) -> http.client.HTTPConnection:
        connection = self.connect()
        body = json.dumps({"prompt": "Hi", "stream": stream, "max_new_tokens": 4000})
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        return connection

    def is_ready(self) -> bool:
        return self._answers("/readyz")

    def is_up(self) -> bool:
        return self._answers("/healthz")

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self.connect()
            connection.request("GET", path)
            return connection.getresponse().status == 200
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)  # the process under test gives no event to wait for


def events_of(raw: str) -> list[str]:
    return [line.removeprefix("event: ") for line in raw.splitlines() if line.startswith("event: ")]


@contextlib.contextmanager
def connections(server: Running, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port), 20)
            stack.enter_context(client)
            if sent:
                client.sendall(sent)
            opened.append(client)
        yield opened


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "functions", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
