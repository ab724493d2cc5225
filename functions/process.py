"""Metrics of the process itself, under the names that Prometheus's client library uses."""

import os
import resource
import time
from pathlib import Path

from functions import version
from functions.metrics import Registry

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = resource.getpagesize()


def register(metrics: Registry) -> None:
    """Add the metrics of this process, and its build; the former come from /proc: Linux only."""
    metrics.info(
        "pibloom_build_info", "A constant 1, with the build.", lambda: {"version": version()}
    )
    if not (_PROC / "self/stat").exists():
        return
    for name, help_, read, kind in (
        ("cpu_seconds_total", "Total user and system CPU time spent in seconds.", _cpu, "counter"),
        ("virtual_memory_bytes", "Virtual memory size in bytes.", _virtual, "gauge"),
        ("resident_memory_bytes", "Resident memory size in bytes.", _resident, "gauge"),
        (
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            _started,
            "gauge",
        ),
        ("open_fds", "Number of open file descriptors.", _files, "gauge"),
        ("max_fds", "Maximum number of open file descriptors.", _most_files, "gauge"),
    ):
        metrics.read(f"process_{name}", help_, read, kind)


def age() -> float:
    """Return for how many seconds this process has existed; 0 where /proc does not say."""
    try:
        started = _stat(22) / _TICKS  # seconds after the machine
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _stat(number: int) -> int:
    """Return a field of /proc/self/stat by its number in proc(5), from the third on.

    The second is the program's name, which may hold blanks and parentheses.
    """
    return int((_PROC / "self/stat").read_text().rpartition(")")[2].split()[number - 3])


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


def _virtual() -> float:
    return _stat(23)


def _resident() -> float:
    return _stat(24) * _PAGE


def _started() -> float:
    lines = (_PROC / "stat").read_text().splitlines()
    booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + _stat(22) / _TICKS


def _files() -> float:
    return len(os.listdir(_PROC / "self/fd"))


def _most_files() -> float:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
