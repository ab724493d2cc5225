"""Other programs' variables do not reach a function."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.foreign import FOREIGN
from tests.functions.servers import ROOT, Running, free_port, wait_until


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
