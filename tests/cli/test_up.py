"""`pibloom up`: what each service is given, and what is refused before anything starts."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx

from cli.up import environment_of
from tests.cli.stand_ins import ROOT, Up, begin
from tests.foreign import EVERYTHING, FOREIGN
from tests.functions.servers import wait_until
from tests.ports import free_port


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
