"""`pibloom up` with small stand-ins for the services: all start, all end, always."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.functions.test_server import free_port, wait_until

ROOT = Path(__file__).parents[2]
SERVICE = """
import http.server, os, signal, subprocess, sys
port, name = int(sys.argv[1]), sys.argv[2]
if name == os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if name == os.environ.get("DIES"):
    sys.exit("piBLOOM: the disk melted")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
with open(os.environ["PIDS"], "a") as file:
    print(os.getpid(), child.pid, file=file)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
PARENT = """
import os, sys
from cli import up
script = sys.argv[1]
up._service = lambda name, host, port, environment, *, reload: up.Service(
    name, [sys.executable, script, str(port), name], host, port, "--port", "/readyz", environment)
up.SETTLED = float(os.environ.get("SETTLED", "10"))
up.PATIENCE = float(os.environ.get("PATIENCE", "2"))
sys.argv = ["pibloom", *sys.argv[2:]]
from cli.main import main
main()
"""


class Up:
    """A running `pibloom up`, and the processes under it."""

    def __init__(self, folder: Path, arguments: Sequence[str], **environment: str) -> None:
        self.pids_file = folder / "pids"
        self.pids_file.touch()
        script = folder / "service.py"
        script.write_text(SERVICE)
        self.ports = [free_port() for _ in range(3)]
        flags = ("--port", "--generate-port", "--tokenize-port")
        ports = [part for pair in zip(flags, map(str, self.ports), strict=True) for part in pair]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(script), "up", *ports, *arguments],
            cwd=ROOT,
            env=os.environ | {"PIDS": str(self.pids_file)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in self.pids_file.read_text().split()]

    @property
    def alive(self) -> list[int]:
        return [pid for pid in self.pids if is_alive(pid)]

    def wait_for_chat(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("Chat:"):
                assert f"127.0.0.1:{self.ports[0]}" in line
                return
        raise AssertionError(self.process.stderr.read() if self.process.stderr else "")


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def ups(tmp_path: Path) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for up in started:
        up.process.kill()
        for pid in up.alive:
            os.kill(pid, signal.SIGKILL)


def begin(ups: list[Up], folder: Path, *arguments: str, **environment: str) -> Up:
    ups.append(Up(folder, arguments, **environment))
    return ups[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(ups: list[Up], tmp_path: Path, number: signal.Signals) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    assert len(up.alive) == 6
    up.process.send_signal(number)
    assert up.process.wait(15) == 0
    assert up.alive == []


def test_a_service_that_will_not_end_is_killed(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, STUBBORN="generate")
    up.wait_for_chat()
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []


def test_a_second_signal_kills_at_once(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, STUBBORN="ui", PATIENCE="100")
    up.wait_for_chat()
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: len(up.alive) <= 2)
    started = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []
    assert time.monotonic() - started < 15


def test_services_end_even_when_the_parent_is_killed(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    services = up.pids[::2]
    up.process.kill()
    wait_until(lambda: not any(map(is_alive, services)))


def test_a_service_that_dies_ends_the_others_with_its_last_words(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path, DIES="generate")
    _, said = up.process.communicate(timeout=20)
    assert up.process.returncode == 1
    assert said.splitlines()[-1] == "pibloom: the disk melted"
    assert up.alive == []


def test_a_service_that_is_killed_later_is_started_again(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, SETTLED="0")
    up.wait_for_chat()
    before = up.pids
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(up.pids) == 8)
    assert not is_alive(before[1]), "what was left of it was not ended"
    assert len(up.alive) == 6
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(15) == 0
    assert up.alive == []


def test_a_service_that_dies_soon_ends_everything(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    os.kill(up.pids[0], signal.SIGKILL)
    assert up.process.wait(20) == 1
    assert up.alive == []


def test_a_busy_port_is_named_before_anything_starts(ups: list[Up], tmp_path: Path) -> None:
    first = begin(ups, tmp_path)
    first.wait_for_chat()
    second = begin(ups, tmp_path, "--port", str(first.ports[0]))
    _, said = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert str(first.ports[0]) in said
    assert said.count("\n") == 1
    assert len(first.alive) == 6


def test_what_it_says_to_ask_names_a_key_where_one_is_needed(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "--api-keys", "secret-key")
    assert up.process.stdout is not None
    while not (line := up.process.stdout.readline()).startswith("Ask it:"):
        pass
    assert "authorization: Bearer KEY" in line
    assert "secret-key" not in line


def test_one_service_can_run_alone(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "tokenize")
    wait_until(lambda: len(up.pids) == 2)
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []
