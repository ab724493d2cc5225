"""Files that are written under a temporary name, and renamed when they are complete."""

import fcntl
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PARTIAL = ".partial"  # the end of the name of a file that is still being written


@contextmanager
def partial_file(output: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Create a file beside the output; it is locked during the block, and deleted after it.

    A process that is killed leaves the file without a lock, and the next bake deletes it.
    """
    with _unwinding_signals():
        partial, file = _create_locked(output)
        try:
            with file:
                yield partial, file
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _create_locked(output: Path) -> tuple[Path, IO[bytes]]:
    while True:
        partial = output.with_name(f"{output.name}.{secrets.token_hex(4)}{PARTIAL}")
        file = partial.open("x+b")
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():
            return partial, file
        file.close()  # another bake deleted it as abandoned before it was locked


@contextmanager
def _unwinding_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise an exception, so that the file is deleted before the end."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals; the next bake deletes what is left
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    taken = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def remove_abandoned(partials: Iterator[Path]) -> None:
    """Delete files whose process ended while it wrote them: no process holds their lock."""
    for path in partials:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
