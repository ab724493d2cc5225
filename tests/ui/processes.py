"""The chat as a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def chat(port: int, *more: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start the chat with further arguments and variables; it may not be ready yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ui", "--port", str(port), *more],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until_healthy(port: int, process: subprocess.Popen[str]) -> None:
    """Return once the chat answers its health check."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[0]
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}
            return
        except httpx.TransportError:
            time.sleep(0.05)  # nothing announces that a port is open
    pytest.fail("the chat did not start within 30 s")
