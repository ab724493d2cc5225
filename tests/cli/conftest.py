"""Commands and servers that are ended after the test."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.stand_ins import Up, children
from tests.functions.conftest import generate, start

__all__ = ["generate", "start"]  # fixtures: the function, and a server, on a fake engine


@pytest.fixture
def ups(tmp_path: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            for child in [*children(up.process.pid), up.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        up.process.wait()
        for pid in up.alive:
            os.kill(pid, signal.SIGKILL)
