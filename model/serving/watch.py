"""Tells a slow step of an engine from one that hangs, by signs of progress while it runs.

A step has no time limit: it can take minutes when weights are read from a slow disk page by page,
or a large model runs on a small machine. The signs are read only when somebody asks, so steps do
not get slower.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

STUCK = 60.0  # seconds without any sign
SPINNING = 600.0  # seconds with processor time as the only sign, as in an endless loop

Signs = tuple[object, int]  # of work done or data read, and processor time


def thread_signs(thread: int) -> Signs:
    """Return a thread's page faults and bytes read from disks, and its processor time.

    `thread` is the kernel's id of it. Values that the system does not give stay 0.
    """
    folder = Path(f"/proc/self/task/{thread}")
    faults = read = cpu = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        # After the name, which may hold spaces: fields 12, 14 and 15 of proc_pid_stat(5).
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        faults, cpu = int(fields[9]), int(fields[11]) + int(fields[12])
    with contextlib.suppress(OSError, ValueError, IndexError):
        cpu = int((folder / "schedstat").read_text().split()[0])  # more exact, where it exists
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
        read = int(lines.get("read_bytes", 0))
    return (faults, read), cpu


class Watch:
    """Watches the steps of one engine.

    `begin` and `end` are called by the thread that runs the steps, `stuck` by any thread.
    """

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
        self._worked = self._ran = 0.0  # when each sign was last seen to change

    def begin(self) -> None:
        """Note that the current thread begins a step."""
        self._thread, self._since = threading.get_native_id(), self._clock()

    def end(self) -> None:
        """Note that the step is over."""
        self._since = None

    @property
    def stuck(self) -> bool:
        """Whether a step runs that shows no sign of progress any more.

        Signs are compared with those of the last call, so only a second call can return true.
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
