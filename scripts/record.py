"""Record `pibloom up --model NAME` from an empty cache to a reply, as a person sees it.

    python -m scripts.record       # needs pyte, a terminal in Python: pip install pyte

The hub is the tests' own, on loopback; under the name bigscience/bloomz-560m it has random weights
of that shape (`bench/weights.py`). What is written are the screens at the moments that matter.
"""

import contextlib
import fcntl
import importlib
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path

from bench import weights
from tests.fake_hub import fake_hub

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "recordings" / "up-by-name.txt"
NAME = "bigscience/bloomz-560m"
COLUMNS, ROWS = 100, 24
INTRODUCTION = f"""\
What a terminal of {COLUMNS} columns shows from an empty cache to a reply (scripts/record.py). The
hub is a local one, whose {NAME} has random weights, so the reply is nonsense.
"""
CARD = "---\nlicense: bigscience-bloom-rail-1.0\n---\n"


class Terminal:
    """A terminal with a shell, and what its screen shows."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._pyte = importlib.import_module("pyte")
        self.screen = self._pyte.HistoryScreen(COLUMNS, ROWS, history=500)
        self._stream = self._pyte.ByteStream(self.screen)
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=environment | {"TERM": "xterm-256color", "PS1": "$ ", "COLUMNS": str(COLUMNS)},
            cwd=folder,
        )
        os.close(follower)
        self._descriptor = leader
        self.read_until(r"^\$$")

    def type(self, text: str) -> None:
        """Send keys, one by one."""
        for key in text:
            os.write(self._descriptor, key.encode())
            self._read(0.02)

    def read_until(self, pattern: str, seconds: float = 100) -> None:
        """Read on until the screen shows something; raises `TimeoutError`."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text(), re.MULTILINE):
            if time.monotonic() > end:
                raise TimeoutError(f"{pattern} did not come:\n{self.text()}")
            self._read(0.1)

    def text(self) -> str:
        """Return what the screen shows, with what has left it at its top."""
        above = [
            "".join(line[at].data for at in range(COLUMNS)) for line in self.screen.history.top
        ]
        lines = [line.rstrip() for line in (*above, *self.screen.display)]
        return "\n".join(lines).rstrip()

    def close(self) -> None:
        """End the shell and what it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGHUP)
        self._process.wait(20)
        os.close(self._descriptor)

    def _read(self, seconds: float) -> None:
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return
        with contextlib.suppress(OSError):
            self._stream.feed(os.read(self._descriptor, 1 << 16))


def main() -> None:
    """Record, and write the screens."""
    moments: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        repository = place / "repository"
        shutil.copytree(weights.checkpoint(), repository, copy_function=os.link)
        (repository / "README.md").write_text(CARD)
        with fake_hub({NAME: repository}) as hub:
            hub.faults.slow = 0.001  # as a quick line would be
            environment = {
                "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(place),
                "LANG": "C.UTF-8",
                "HF_ENDPOINT": hub.url,
            }
            first, second = (Terminal(environment, place) for _ in range(2))
            try:
                record(first, second, moments)
            finally:
                first.close()
                second.close()
    OUTPUT.parent.mkdir(exist_ok=True)
    screens = (f"\n=== {title}\n\n{screen}\n" for title, screen in moments)
    OUTPUT.write_text(INTRODUCTION + "".join(screens), encoding="utf-8")


def record(first: Terminal, second: Terminal, moments: list[tuple[str, str]]) -> None:
    """Do what a person would, and keep the screens."""

    def keep(title: str, terminal: Terminal) -> None:
        moments.append((title, terminal.text().rstrip()))

    first.type(f"pibloom up --model {NAME}\r")
    first.read_until(r"model\.safetensors .* 0\.[45]/")
    keep("the model is being pulled", first)
    first.read_until(r"baking bloomz-560m .*0:00:\d")
    keep("pulled, and being baked", first)
    first.read_until("Ctrl-C ends it")
    keep("all is ready", first)
    second.type("pibloom generate --url http://127.0.0.1:8081 --max-new-tokens 16 Hello\r")
    second.read_until(r"^\$$")
    second.type("pibloom models\r")
    second.read_until(r"8 bits[^$]*^\$$")
    keep("in a second terminal: a reply, and what is on this machine", second)
    first.type("\x03")
    first.read_until(r"ended\n\$$")
    keep("the first terminal, after Ctrl-C", first)


if __name__ == "__main__":
    main()
