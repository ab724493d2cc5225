"""A service of `pibloom up`: its process, what it writes, and whether it is ready."""

import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.text import say, visible

_PR_SET_PDEATHSIG = 1
# Looked up here, since a process between fork and exec may not load anything.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass
class ServiceProcess:
    """A child process and where it listens."""

    name: str
    command: Sequence[str]
    host: str
    port: int
    flag: str
    probe_path: str
    environment: dict[str, str]  # all that the process is given
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    ready: bool = False
    was_ready: bool = False
    exits: int = 0  # in a row
    next_start: float | None = None  # while it waits to be started again
    answer: str = "nothing answered"  # the result of the last probe, for people
    stderr_lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    relays: Sequence[threading.Thread] = ()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{_in_url(self._address)}:{self.port}"

    @property
    def _address(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def start(self, *, verbose: bool) -> None:
        """Start the process in a group of its own, so that Ctrl-C does not reach it directly."""
        self.started, self.ready, self.next_start = time.monotonic(), False, None
        self.stderr_lines.clear()
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.relays = [
            threading.Thread(
                target=self._relay, args=(pipe, keep, verbose), name=self.name, daemon=True
            )
            for pipe, keep in ((self.process.stdout, False), (self.process.stderr, True))
        ]
        for relay in self.relays:
            relay.start()

    def _relay(self, pipe: object, keep: bool, verbose: bool) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            shown = visible(line.rstrip())
            if keep:
                self.stderr_lines.append(shown)
            if verbose or not keep:
                say(f"{self.name:>8}  {shown}")

    def probe(self) -> bool:
        """Ask once whether it is ready, never through a proxy."""
        connection = http.client.HTTPConnection(self._address, self.port, timeout=2)
        try:
            connection.request("GET", self.probe_path)
            reply = connection.getresponse()
            self.ready = reply.status == 200
            self.answer = f"the answer was status {reply.status}{_error_message(reply.read(65536))}"
        except TimeoutError:
            self.answer = "nothing was answered within 2 s"
        except OSError as error:
            self.answer = f"nothing answered ({error.strerror or type(error).__name__})"
        except http.client.HTTPException:
            self.answer = "the answer was not HTTP"
        finally:
            connection.close()
        return self.ready

    def send(self, number: int) -> None:
        """Send a signal to the whole group, if any process of it is left."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def exit_reason(self) -> str:
        """Return one sentence that says why it ended."""
        assert self.process is not None
        for relay in self.relays:
            relay.join(0.5)  # its last lines may still be in the pipe
        said = [line for line in self.stderr_lines if line.startswith("piBLOOM:")]
        if said:
            return said[-1].removeprefix("piBLOOM:").strip()
        last = f": {self.stderr_lines[-1]}" if self.stderr_lines else ""
        code = self.process.returncode
        if code < 0:
            return f"{self.name} was ended by {signal.Signals(-code).name}{last}"
        return f"{self.name} ended by itself with exit code {code}{last}"


def _error_message(body: bytes) -> str:
    """Return the message of a function's error as a clause, or nothing if there is none."""
    try:
        return f", {visible(str(json.loads(body)['error']['message']))}"
    except (ValueError, KeyError, TypeError):
        return ""


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, even if the parent is killed."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
