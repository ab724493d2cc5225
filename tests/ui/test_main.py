"""The command: quiet, quick to end, and one sentence for what it cannot do."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.foreign import FOREIGN
from tests.ports import free_port
from tests.ui.processes import ROOT, chat, wait_until_healthy


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_silently_and_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    before = set(ROOT.iterdir())
    with chat(port) as process:
        wait_until_healthy(port, process)
        page = httpx.get(f"http://127.0.0.1:{port}/").text
        started = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - started < 3
    assert (process.returncode, output) == (0, "")
    assert "/assets/" in page
    assert {p for p in set(ROOT.iterdir()) - before if p.name.startswith(".nicegui")} == set()


@pytest.mark.parametrize("group", FOREIGN)
def test_other_programs_variables_do_not_reach_it(group: str) -> None:
    port = free_port()
    with chat(port, **FOREIGN[group]) as process:
        wait_until_healthy(port, process)
        assert "/assets/" in httpx.get(f"http://127.0.0.1:{port}/").text
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, "")


def test_a_busy_port_is_one_sentence_and_status_1() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with chat(port) as process:
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output == (f"Port {port} is taken; end what uses it, or choose another with --port.\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PIBLOOM_TYPO", "1"), ("PIBLOOM_GENERATE_URL", "nonsense"), ("PIBLOOM_UI_SECRET", "short")],
)
def test_a_bad_setting_is_one_sentence_and_status_2(name: str, value: str) -> None:
    with chat(free_port(), **{name: value}) as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert name in output
    assert output.count("\n") == 1


def test_reload_serves_and_ends_with_its_child() -> None:
    port = free_port()
    with chat(port, "--reload") as process:
        wait_until_healthy(port, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_the_chat_knows_the_functions_by_address_only() -> None:
    code = (
        "import sys, ui.app; bad = [n for n in sys.modules"
        " if n.split('.')[0] in ('functions', 'model', 'torch', 'transformers')]; sys.exit(str(bad)"
        " if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
