"""Each command where a stream is closed or full, an encoding is odd, or there is no home folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from model.names import default_model
from tests.functions.servers import wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TEXT = "Hello, 你好"
NO_UTF8 = os.fsdecode(b"/nothing/h\xff\xfe/\x1b[31m[/bold]")


@dataclass(frozen=True)
class Case:
    """A command, its exit code, and whether it writes to standard output."""

    arguments: tuple[str, ...]
    code: int = 0
    writes: bool = True


COMMANDS = {
    "help": Case(("--help",)),
    "wrong usage": Case(("dance",), 2, writes=False),
    "tokenize": Case(("tokenize", TEXT)),
    "tokenize --json": Case(("tokenize", "--json", TEXT)),
    "eval": Case(("eval", "--alone", "--no-speed", "--tokens", "8")),
    "inspect": Case(("inspect", "--tensors")),
    "generate": Case(("generate", TEXT, "--temperature", "0", "--max-new-tokens", "2")),
    "bake": Case(
        ("bake", str(default_model()), "--tokenizer-only", "-o", "TMP/t.bloom"), writes=False
    ),
    "a path that is not UTF-8": Case(("inspect", NO_UTF8), 3, writes=False),
}


@dataclass(frozen=True)
class Condition:
    """What a shell does to a command's streams, and the environment; None removes a variable."""

    streams: str = ""
    code: int = 0  # of commands that would write to standard output
    encoding: str = "utf-8"
    environment: Mapping[str, str | None] = field(default_factory=dict)


def _encoded(encoding: str) -> Condition:
    return Condition(encoding=encoding, environment={"PYTHONIOENCODING": encoding})


ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONDITIONS = {
    "no standard input": Condition("<&-"),
    "no standard output": Condition(">&-", 1),
    "no standard error": Condition("2>&-"),
    "no streams": Condition("<&- >&- 2>&-", 1),
    "full output": Condition(">/dev/full", 1),
    "full error": Condition("2>/dev/full"),
    "both full": Condition(">/dev/full 2>/dev/full", 1),
    "a reader that leaves": Condition("| true"),
    "ASCII": _encoded("ascii"),
    "Latin-1": _encoded("latin-1"),
    "UTF-16": _encoded("utf-16"),
    "EBCDIC": _encoded("cp037"),
    "an ASCII locale": Condition(environment=ASCII_LOCALE),
    "an unknown locale": Condition(environment={"LC_ALL": "nonsense"}),
    "no home": Condition(environment={"HOME": None}),
    "an empty home": Condition(environment={"HOME": "", "XDG_CACHE_HOME": ""}),
    "a home that is not there": Condition(environment={"HOME": "/proc/nothing"}),
    "no temporary folder": Condition(environment={"TMPDIR": "/nothing"}),
    "an odd terminal": Condition(environment={"COLUMNS": "x", "LINES": "-1", "TERM": "odd"}),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_command_does_its_work_or_says_why_not(condition: str, tmp_path: Path) -> None:
    given = CONDITIONS[condition]

    def run(name: str) -> None:
        _run(COMMANDS[name], given, tmp_path / name.replace(" ", "-"), name)

    with ThreadPoolExecutor(2) as two:
        list(two.map(run, COMMANDS))


def _run(case: Case, given: Condition, folder: Path, name: str) -> None:
    folder.mkdir()
    environment = {
        variable: text
        for variable, text in {**os.environ, **given.environment}.items()
        if text is not None
    }
    if environment.get("HOME") in (None, "", "/proc/nothing"):
        environment.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    arguments = [each.replace("TMP", str(folder)) for each in case.arguments]
    shell = f'{{ "$@"; echo $? >&9; }} 9>{folder}/code {given.streams}'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    for noise in (b"Traceback", b"Exception ignored", b"lost sys.std", b"\x1b", b"Fatal"):
        assert noise not in said.replace(b"\0", b""), (name, said)
    code = int((folder / "code").read_text())
    assert code == (case.code or (given.code if case.writes else 0)), (name, said)
    if name == "bake":
        assert (folder / "t.bloom").stat().st_size > 0
    if given.encoding not in ("utf-16", "cp037"):
        if code and "2>" not in given.streams:
            assert done.stderr.count(b"\n") <= 4
            assert done.stderr.strip(), name
        if name == "tokenize --json" and not given.streams:
            pieces = json.loads(done.stdout.decode(given.encoding))["pieces"]
            assert "".join(pieces) == TEXT


@pytest.mark.parametrize(
    "streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full", "| :"]
)
@pytest.mark.parametrize("module", ["functions tokenize", "ui"])
def test_a_service_answers_wherever_its_words_go(module: str, streams: str, tmp_path: Path) -> None:
    port = free_port()
    command = f"{sys.executable} -m {module} --port {port} {streams}"
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=ROOT,
        env=os.environ | {"HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "said").open("w"),
        start_new_session=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or _status(port, "/healthz") == 200)
        assert process.poll() is None, (tmp_path / "said").read_text()
        # What is logged goes nowhere, and says nothing of it.
        assert _status(port, "/nothing-here\u00e9") == 404
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "said").read_text() == ""


def _status(port: int, path: str) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=20).status_code
    except httpx.HTTPError:
        return 0
