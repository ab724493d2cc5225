"""File descriptors: how many a process may have, and how many are left for connections."""

import contextlib
import os
import resource

# Descriptors for everything but connections: the model, logs, the poller, reading /proc.
OTHER_FILES = 24


def raise_limit(wanted: int) -> None:
    """Raise the limit of open files as far as is wanted and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def left_for_connections() -> int:
    """Return how many connections there are descriptors for."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _open_files() - OTHER_FILES


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return OTHER_FILES
