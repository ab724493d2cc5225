"""Tells an engine's step that is slow from one that hangs, by what moves while it runs.

A step has no longest time: weights that are read from a slow disk page by page, or a large model on
a small machine, take minutes. It is looked at only when somebody asks, so a step pays nothing.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

STUCK = 60.0  # seconds in which nothing at all moves
SPINNING = 600.0  # seconds in which processor time is spent and nothing else moves: an endless loop

Signs = tuple[object, int]  # what moves with work done or data read, and processor time


def thread_signs(thread: int) -> Signs:
    """Return a thread's page faults and bytes read from disks, and its processor time.

    `thread` is the kernel's number for it. What the system does not tell stays the same.
    """
    folder = Path(f"/proc/self/task/{thread}")
    faults = read = cpu = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        # After the name, which may hold blanks: the 12th field, and the 14th and 15th.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        faults, cpu = int(fields[9]), int(fields[11]) + int(fields[12])
    with contextlib.suppress(OSError, ValueError, IndexError):
        cpu = int((folder / "schedstat").read_text().split()[0])  # finer, where there is one
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
        read = int(lines.get("read_bytes", 0))
    return (faults, read), cpu


class Watch:
    """Watches the steps of one engine, which run on one thread; asked from any other."""

    def __init__(
        self,
        progress: Callable[[], int],
        *,
        signs: Callable[[int], Signs] = thread_signs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`progress` returns a number that changes with each part of a step."""
        self._progress, self._signs, self._clock = progress, signs, clock
        self._thread = 0
        self._since: float | None = None  # when the step that runs began
        self._lock = threading.Lock()
        self._seen: Signs = (None, -1)
        self._worked = self._ran = 0.0  # when each was first seen as it is

    def begin(self) -> None:
        """Note that this thread begins a step."""
        self._thread, self._since = threading.get_native_id(), self._clock()

    def end(self) -> None:
        """Note that the step is over."""
        self._since = None

    @property
    def stuck(self) -> bool:
        """Whether a step runs in which nothing moves.

        What moves is known from the last time that this was asked, so the second answer is the
        first that can be true.
        """
        since = self._since
        if since is None:
            return False
        with self._lock:
            now = self._clock()
            moved, cpu = self._signs(self._thread)
            work = (self._progress(), moved)
            if work != self._seen[0]:
                self._worked = now
            if cpu != self._seen[1]:
                self._ran = now
            self._seen = work, cpu
            still, working = max(since, self._worked, self._ran), max(since, self._worked)
        return now - still >= STUCK or now - working >= SPINNING
