"""Servers that several tests share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functions.servers import ROOT, Running, wait_until
from tests.ports import free_port

MOST = 65536  # PIBLOOM_MAX_BODY of `server`


@pytest.fixture
def tokenize_server() -> Iterator[Running]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "functions", "tokenize", "--port", str(port)], cwd=ROOT
    )
    running = Running(process, port, Path(__file__))
    wait_until(running.is_ready)
    yield running
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port, steps = free_port(), tmp_path_factory.mktemp("http") / "steps"
    steps.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.functions.fake_server", str(port), "Hello", "0"],
        cwd=ROOT,
        env=os.environ
        | {
            "STEPS_FILE": str(steps),
            "PIBLOOM_LOG_LEVEL": "ERROR",
            "PIBLOOM_MAX_BODY": f"{MOST}",
        },
    )
    running = Running(process, port, steps)
    wait_until(running.is_ready)
    yield running
    process.kill()
    process.wait()
