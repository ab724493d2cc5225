"""The command that serves one function."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.foreign import FOREIGN
from tests.functions.servers import ROOT, Running, serve, wait_until
from tests.ports import free_port


def test_a_busy_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("tokenize", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


def test_a_bad_setting_ends_the_server_with_a_sentence() -> None:
    done = serve("tokenize", "--port", str(free_port()), PIBLOOM_SPEED="fast")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PIBLOOM_SPEED" in done.stderr


@pytest.mark.parametrize("group", FOREIGN)
def test_a_function_starts_and_answers_whatever_others_variables_say(group: str) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "functions", "tokenize", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | FOREIGN[group],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = Running(process, port, Path(os.devnull))
    try:
        wait_until(lambda: process.poll() is not None or server.is_ready())
        assert process.poll() is None, process.stderr and process.stderr.read().decode()[-500:]
        connection = server.connect()
        connection.request("POST", "/", '{"text": "Hi"}', {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
    finally:
        process.kill()
        process.wait()
