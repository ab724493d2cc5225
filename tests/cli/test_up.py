"""`pibloom up` with small stand-ins for the services: all start, all end, always."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cli.up import environment_of, pause
from tests.foreign import EVERYTHING, FOREIGN
from tests.functions.servers import free_port, wait_until

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
from cli import up
script = sys.argv[1]
tests = {name: os.environ[name] for name in os.environ["TESTS"].split()}
up._service = lambda name, host, port, environment, *, reload: up.Service(
    name, [sys.executable, script, str(port), name], host, port, "--port", "/readyz",
    environment | tests)
up.FIRST_PAUSE = up.LONGEST_PAUSE = 0.05
up.PATIENCE = float(os.environ.get("PATIENCE", "2"))
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


def test_a_service_that_dies_again_and_again_is_started_again_and_the_others_stay(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    _, child = up.latest("tokenize")
    others = [*up.latest("generate"), *up.latest("ui")]
    for deaths in range(1, 5):
        os.kill(up.latest("tokenize")[0], signal.SIGKILL)
        wait_until(lambda: len(up.pids) == 6 + 2 * deaths)  # noqa: B023
    assert not is_alive(child), "what was left of it was not ended"
    assert all(map(is_alive, others))
    assert len(up.alive) == 6
    up.process.send_signal(signal.SIGINT)
    _, said = up.process.communicate(timeout=15)
    assert up.process.returncode == 0
    assert up.alive == []
    assert said.count("tokenize was ended by SIGKILL; starting it again in 0.05 s") == 4


def test_one_that_dies_while_another_is_still_loading_is_started_again(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path, LOADING="generate")
    assert up.process.stderr is not None
    while "tokenize is ready" not in up.process.stderr.readline():
        pass
    wait_until(lambda: len(up.pids) == 6)
    os.kill(up.latest("tokenize")[0], signal.SIGKILL)
    while "tokenize is ready again" not in up.process.stderr.readline():
        pass
    assert up.process.poll() is None


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause(deaths) for deaths in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pause(100_000) == 60


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("LOADING", "the answer was status 503, it still <U+001B>[2J loads"),
        ("DEAF", "its last words are: nobody hears this"),
        ("SILENT", "nothing was answered within 2 s"),
    ],
)
def test_a_start_that_does_not_end_says_what_it_waits_for(
    ups: list[Up], tmp_path: Path, fault: str, said: str
) -> None:
    up = begin(ups, tmp_path, "--start-timeout", "1.5", **{fault: "generate"})
    _, error = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("pibloom: generate is not ready after 1.5 s: generate was asked at http")
    assert said in last
    assert up.alive == []


def test_a_proxy_is_not_asked_for_what_is_here(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "--start-timeout", "20", **FOREIGN["proxies"])
    up.wait_for_chat()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "| true"])
def test_what_cannot_be_said_ends_nothing(ups: list[Up], tmp_path: Path, closed: str) -> None:
    up = Up(tmp_path, [], through=closed)
    ups.append(up)
    wait_until(lambda: len(up.pids) == 6)
    first = up.pids[0]
    wait_until(lambda: up.was_asked(first))
    os.kill(first, signal.SIGKILL)  # it is still looked after
    wait_until(lambda: len(up.pids) == 8)


def test_each_service_is_given_what_is_its_own() -> None:
    keys = {"PIBLOOM_API_KEYS": "a,b", "PIBLOOM_API_KEYS_FILE": "/keys"}
    chats = {"PIBLOOM_API_KEY": "a", "PIBLOOM_UI_SECRET": "s" * 16}
    system = {"PATH": "/bin", "HOME": "/root", "PYTHONPATH": "/p"}
    given = {**EVERYTHING, **keys, **chats, **system, "PIBLOOM_BITS": "4", "PYTHONINSPECT": "1"}
    functions, chat = environment_of("generate", given), environment_of("ui", given)
    assert functions.items() >= (keys | system | {"PIBLOOM_BITS": "4"}).items()
    assert chat.items() >= (chats | system).items()
    assert not functions.keys() & chats.keys()
    assert not chat.keys() & (keys | {"PIBLOOM_BITS": ""}).keys()
    foreign = EVERYTHING.keys() - FOREIGN["empty"].keys() | {"HOST", "PORT", "PYTHONINSPECT"}
    assert not (functions.keys() | chat.keys()) & foreign
    assert environment_of("tokenize", given) == functions


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
    up = begin(ups, tmp_path, PIBLOOM_API_KEYS="secret-key")
    assert up.process.stdout is not None
    while not (line := up.process.stdout.readline()).startswith("Ask it:"):
        pass
    assert "authorization: Bearer KEY" in line
    assert "secret-key" not in line


def test_the_services_themselves_answer_and_each_holds_its_own_keys_only(tmp_path: Path) -> None:
    """With every variable of others set; what a process was given is read from /proc."""
    ports = {name: free_port() for name in ("ui", "generate", "tokenize")}
    flags = [f"--port={ports['ui']}"]
    flags += [f"--{name}-port={ports[name]}" for name in ("generate", "tokenize")]
    (tmp_path / "keys").write_text("key-of-the-file\n")
    secrets = {
        "PIBLOOM_API_KEYS": "key-of-the-chat,key-of-another",
        "PIBLOOM_API_KEYS_FILE": str(tmp_path / "keys"),
        "PIBLOOM_UI_SECRET": "sixteen-letters-that-sign",
        "PIBLOOM_LOG_LEVEL": "DEBUG",
        "HOME": str(tmp_path),
        "FORCE_COLOR": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "up", "--verbose", *flags],
        cwd=ROOT,
        env=os.environ | EVERYTHING | secrets,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("w"),
        text=True,
    )
    try:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if line.startswith("Ctrl-C"):
                break
        assert line, (tmp_path / "log").read_text()
        with httpx.Client(trust_env=False, timeout=30) as client:
            for key, status in (
                ("key-of-the-chat", 200),
                ("key-of-the-file", 200),
                ("no-key", 401),
            ):
                answer = client.post(
                    f"http://127.0.0.1:{ports['generate']}/chat/",
                    json={"content": "Hello"},
                    headers={"Authorization": f"Bearer {key}"},
                )
                assert answer.status_code == status
            assert client.get(f"http://127.0.0.1:{ports['ui']}/").status_code == 200
        given = dict.fromkeys(ports, "")
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().decode().split("\0")
                assert "key-of" not in " ".join(command)
                for name, port in ports.items():
                    if str(port) in command:
                        given[name] += (folder / "environ").read_bytes().decode()
        for name in ("generate", "tokenize"):
            assert "key-of-the-chat,key-of-another" in given[name]
            assert "sixteen-letters" not in given[name]
        assert "PIBLOOM_API_KEY=key-of-the-chat\0" in given["ui"]
        assert "sixteen-letters" in given["ui"]
        assert "key-of-another" not in given["ui"]
        assert "API_KEYS" not in given["ui"]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    for text in ("key-of", "no-key", "sixteen-letters"):
        assert text not in (tmp_path / "log").read_text() + rest


def test_one_service_can_run_alone(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "tokenize")
    wait_until(lambda: len(up.pids) == 2)
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []
