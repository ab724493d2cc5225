"""Files that are written under a temporary name, and get their own when they are whole."""

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
    """Open a file beside the output to write to, locked for as long as it is; then delete it.

    A process that is killed leaves it without a lock, and the next bake deletes it.
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
        file.close()  # another bake took it for abandoned before it was locked


@contextmanager
def _unwinding_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process by way of an exception, so that it leaves no file."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; what it leaves is deleted by the next bake
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
    """Delete files that were being written when their process ended: nobody holds their lock."""
    for path in partials:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
