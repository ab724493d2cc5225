"""A running `pibloom up` whose services are small stand-ins."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_port

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
    print(name, os.getpid(), child.pid, file=file)
if name == os.environ.get("DEAF"):
    print("nobody hears this", file=sys.stderr, flush=True)
    signal.pause()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if name == os.environ.get("SILENT"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            signal.sigwait([signal.SIGUSR1])
        body = b'{"error": {"message": "it still \\u001b[2J loads"}}'
        self.send_response(503 if name == os.environ.get("LOADING") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with open(os.environ["PIDS"] + ".asked", "a") as file:
            print(os.getpid(), file=file)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
PARENT = """
import os, sys
from cli import supervisor, up
script = sys.argv[1]
tests = {name: os.environ[name] for name in os.environ["TESTS"].split()}
up._service = lambda name, host, port, environment, *, reload: up.ServiceProcess(
    name, [sys.executable, script, str(port), name], host, port, "--port", "/readyz",
    environment | tests)
supervisor.FIRST_DELAY = supervisor.LONGEST_DELAY = 0.05
supervisor.PATIENCE = float(os.environ.get("PATIENCE", "2"))
sys.argv = ["pibloom", *sys.argv[2:]]
from cli.main import main
main()
"""


class Up:
    """A running `pibloom up`, and the processes under it."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], through: str = "", **environment: str
    ) -> None:
        self.pids_file = folder / "pids"
        self.pids_file.touch()
        script = folder / "service.py"
        script.write_text(SERVICE)
        self.ports = [free_port() for _ in range(3)]
        flags = ("--port", "--generate-port", "--tokenize-port")
        ports = [part for pair in zip(flags, map(str, self.ports), strict=True) for part in pair]
        command = [sys.executable, "-c", PARENT, str(script), "up", *ports, *arguments]
        self.process = subprocess.Popen(
            ["sh", "-c", f"{shlex.join(command)} {through}"] if through else command,
            cwd=ROOT,
            env=os.environ
            | {"PIDS": str(self.pids_file), "TESTS": " ".join(["PIDS", *environment])}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def started(self) -> list[tuple[str, int, int]]:
        """Each service: name, process and child, in the order in which they happened to start."""
        lines = map(str.split, self.pids_file.read_text().splitlines())
        return [(name, int(pid), int(child)) for name, pid, child in lines]

    @property
    def pids(self) -> list[int]:
        return [pid for _, *pids in self.started for pid in pids]

    def latest(self, name: str) -> tuple[int, int]:
        """The process and child of a service as it was last started."""
        return [(pid, child) for each, pid, child in self.started if each == name][-1]

    @property
    def alive(self) -> list[int]:
        return [pid for pid in self.pids if is_alive(pid)]

    def was_asked(self, pid: int) -> bool:
        """Whether a service has answered a probe."""
        asked = self.pids_file.with_name("pids.asked")
        return asked.exists() and str(pid) in asked.read_text().split()

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


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def begin(ups: list[Up], folder: Path, *arguments: str, **environment: str) -> Up:
    ups.append(Up(folder, arguments, **environment))
    return ups[-1]
