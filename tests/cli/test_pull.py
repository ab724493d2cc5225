"""`pibloom pull`, and every place where a model may be named: in processes, against our own hub."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from model.names import default_model
from tests.fake_hub import FakeHub, fake_hub
from tests.functions.servers import wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
NAME = "bigscience/bloomz-560m"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(default_model(), tmp_path / "repository"))
    (folder / "README.md").write_text("---\nlicense: bigscience-bloom-rail-1.0\n---\n")
    return folder


@pytest.fixture
def hub(source: Path) -> Iterator[FakeHub]:
    with fake_hub({NAME: source}) as hub:
        yield hub


@pytest.fixture
def run(hub: FakeHub, tmp_path: Path) -> Run:
    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        own = {"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        others = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=tmp_path,
            env=others | {"PYTHONPATH": str(ROOT)} | own | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_model_is_pulled_by_its_name(run: Run, hub: FakeHub) -> None:
    done = run("pull", NAME)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model.safetensors").stat().st_size > 10_000_000
    lines = done.stderr.splitlines()
    assert lines[0] == f"{NAME}, commit {hub.commit[:12]}"
    assert lines[1].startswith("licence: bigscience-bloom-rail-1.0; it restricts")
    assert lines[2] == "pulling 1 of its files, 16.8 MB"
    assert len(lines) == 3
    again = run("pull", NAME, HF_HUB_OFFLINE="1")
    assert (again.stdout, again.stderr) == (done.stdout, "")
    absent = run("pull", "no/such", HF_HUB_OFFLINE="1")
    assert absent.returncode == 3
    assert absent.stderr == "pibloom: no/such is not here, and HF_HUB_OFFLINE is set\n"
    here = run("pull", "--if-needed", f"{NAME}@{hub.commit}", HF_HUB_OFFLINE="1")
    assert (here.stdout, here.stderr) == (done.stdout, "")
    twice = run("pull", f"{NAME}@main", "--revision", "main")
    assert twice.returncode == 2
    assert "the revision is given twice" in twice.stderr


def test_a_terminal_shows_no_bar_of_the_hubs_library(hub: FakeHub, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    own = {"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "pull", NAME],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"} | own,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(screen, 1 << 16):
                shown += part
        os.close(screen)
    assert process.returncode == 0, shown
    assert b"config.json" not in shown, "the hub's library shows bars of its own"
    assert all(name in shown for name in (b"all", b"model.safetensors"))


def test_a_name_serves_wherever_a_model_is_named(run: Run, hub: FakeHub, tmp_path: Path) -> None:
    baked = tmp_path / "baked.bloom"
    assert run("bake", NAME, "-o", str(baked)).returncode == 0
    asked = len(hub.asked)
    inspected = run("inspect", NAME, "--json")
    assert hub.commit in json.loads(inspected.stdout)["folder"], inspected.stderr
    assert json.loads(run("inspect", str(baked), "--json").stdout)["name"] == "bloomz-560m"
    tokens = run("tokenize", "Hello", "--model", f"{NAME}@main", "--json")
    assert json.loads(tokens.stdout)["count"] >= 1
    written = run("generate", "Once", "--max-new-tokens", "2", PIBLOOM_MODEL=NAME)
    assert written.returncode == 0, written.stderr
    assert len(hub.asked) == asked, "what is here was asked for again"


def test_a_folder_comes_before_a_name(run: Run, hub: FakeHub, tmp_path: Path) -> None:
    shutil.copytree(default_model(), tmp_path / NAME)
    assert run("inspect", NAME).returncode == 0
    assert not hub.asked


@pytest.mark.parametrize("command", ["pull", "inspect", "bake", "generate", "up"])
def test_what_is_nowhere_is_a_sentence(run: Run, command: str) -> None:
    named = ["--model", "no/such"] if command in ("up", "generate") else ["no/such"]
    done = run(command, *(["Hi"] if command == "generate" else []), *named)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "there is no model no/such on the hub" in done.stderr
    assert not done.stdout


def test_models_are_listed_and_deleted(run: Run, tmp_path: Path) -> None:
    assert run("models").stdout == "no model was pulled yet: pibloom pull bigscience/bloomz-560m\n"
    assert json.loads(run("models", "--json").stdout) == []
    run("pull", NAME)
    run("generate", "Once", "--max-new-tokens", "1", "--model", NAME)
    own = shutil.copytree(default_model(), tmp_path / "own")
    run("generate", "Once", "--max-new-tokens", "1", "--model", str(own))
    pulled, local = json.loads(run("models", "--json").stdout)
    assert pulled["name"] == NAME
    assert pulled["revision"].startswith("main, 0123456789ab")
    assert pulled["bits"] == local["bits"] == [8]
    assert pulled["size"] > local["size"] > 1_000_000
    assert pulled["used"] <= local["used"]
    assert local["name"] == str(own)
    assert run("models", "rm", "own").returncode == 0, "a path may be given in any way"
    run("generate", "Once", "--max-new-tokens", "1", "--model", str(own))
    listed = run("models").stdout
    assert NAME in listed
    narrow = run("models", COLUMNS="40").stdout
    column = "".join(line[: len(line.split("  ")[0])].strip() for line in narrow.splitlines()[1:])
    assert str(own) in column, "the name that rm takes is cut"
    assert "8 bits" in listed
    assert run("models", "rm", NAME).returncode == 0
    assert run("models", "rm", str(own)).returncode == 0
    assert json.loads(run("models", "--json").stdout) == []
    assert not list((tmp_path / "cache").rglob("*.bloom"))
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    assert (own / "model.safetensors").exists()
    gone = run("models", "rm", NAME)
    assert gone.returncode == 1
    assert gone.stderr == f"pibloom: there is no model {NAME} here; pibloom models lists them\n"


@pytest.mark.parametrize("function", ["tokenize", "generate"])
def test_a_function_serves_a_pulled_model_by_its_name_and_fetches_none(
    run: Run, hub: FakeHub, tmp_path: Path, function: str
) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIBLOOM_MODEL": NAME,
        "HF_ENDPOINT": hub.url,
    }
    port = free_port()
    command = [sys.executable, "-m", "functions", function, "--port", str(port)]
    refused = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 3
    said = [line for line in refused.stderr.splitlines() if line.startswith("piBLOOM: ")]
    assert len(said) == 1
    assert f"pibloom pull {NAME} does" in said[0]
    assert not hub.asked
    run("pull", NAME)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as one:
        try:
            wait_until(lambda: is_ready(port), 60)
            root = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).json()
            assert (root["model"]["name"], root["model"]["revision"]) == ("bloomz-560m", hub.commit)
        finally:
            one.terminate()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
