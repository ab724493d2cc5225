"""Time to ready and peak memory of each service, as README's table: `python -m bench.startup`.

A service is started as `pibloom up` starts it, alone, and asked for readiness every 20 ms. Memory
is read after the work named in the table, over all of a service's processes: `peak` adds their
highest resident sizes (VmHWM), `own` what no other process shares with them (Private of smaps).
Figures are medians; the files are in the page cache from a first run that does not count.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

MESSAGE = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0}


@dataclass(frozen=True)
class Case:
    """A service, its probe, and the request after which its memory is read."""

    name: str
    module: tuple[str, ...]
    probe: str
    work: str
    path: str
    body: dict[str, object] | None


CASES = (
    Case("tokenize", ("functions", "tokenize"), "/readyz", "a text", "/", {"text": "Hello " * 99}),
    Case("generate", ("functions", "generate"), "/readyz", "a story", "/", MESSAGE),
    Case("ui", ("ui",), "/healthz", "a page", "/", None),
)


@dataclass(frozen=True)
class Measured:
    """One run of one service."""

    ready: float  # seconds from process start
    peak: float  # MB
    own: float  # MB


def measure(case: Case) -> Measured:
    """Start a service, let it work once, and end it."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", *case.module, "--port", str(port)]
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, start_new_session=True, env=os.environ
    )
    try:
        while not _answers(url + case.probe):
            if process.poll() is not None:
                sys.exit(f"{case.name} ended with exit code {process.returncode}")
            time.sleep(0.02)
        ready = time.monotonic() - started
        _request(url + case.path, case.body)
        pids = _group(process.pid)
        return Measured(ready, sum(map(_peak, pids)), sum(map(_own, pids)))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _request(url: str, body: dict[str, object] | None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        reply.read()


def _group(leader: int) -> list[int]:
    """List the processes of a group."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if _group_of(pid) == leader]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _peak(pid: int) -> float:
    return _megabytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def _own(pid: int) -> float:
    return _megabytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_")


def _megabytes(path: Path, start: str) -> float:
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith(start)]
    return sum(int(line[1]) for line in lines) / 1000 * 1.024


def main() -> None:
    """Measure every service and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"Python {platform.python_version()}, medians of {runs}\n")
    print("| service | ready after | peak memory | own memory | read after |")
    print("|---|---|---|---|---|")
    rows: dict[str, list[Measured]] = {case.name: [] for case in CASES}
    for run in range(runs + 1):
        for case in CASES:  # in turn, so that a noisy minute does not hit one service only
            measured = measure(case)
            if run:
                rows[case.name].append(measured)
    for case in CASES:
        ready, peak, own = (
            statistics.median(getattr(row, field) for row in rows[case.name])
            for field in ("ready", "peak", "own")
        )
        print(f"| {case.name} | {ready:.1f} s | {peak:.0f} MB | {own:.0f} MB | {case.work} |")


if __name__ == "__main__":
    main()
