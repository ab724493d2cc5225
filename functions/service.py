"""What a function holds while its process lives: loaded once, in the background, after any fork."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from functions.errors import ApiError, Draining, Loading
from model.errors import ModelError

REFUSED = 3  # exit code when the checkpoint cannot be used; gunicorn starts no worker after it
# Seconds for streams that waited for the model to tell their clients that it failed to load.
LAST_WORDS = 1.0

log = logging.getLogger(__name__)


class Closable(Protocol):
    """Something that ends what it runs, giving it `grace` seconds."""

    def close(self, grace: float = 0.0) -> None:
        """End it."""


def _process_age() -> float:
    """Return for how many seconds this process has been; 0 where /proc does not say."""
    try:
        # The 22nd field, after a name that may hold blanks: clock ticks from boot to start.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


# Of the server, which imports this before it forks its worker.
_PROCESS_STARTED = time.monotonic() - _process_age()

T = TypeVar("T", bound=Closable)
State = Literal["loading", "ready", "draining", "failed"]


class Service(Generic[T]):
    """Loads its resource in a thread, and tells how far it is."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._resource: T | None = None
        self._failure = ""
        self._draining = False
        self._settled = threading.Event()  # loaded, failed, or draining
        self._waited_for = False
        self._pid = 0
        self.start_seconds = 0.0  # from the process's start to that of loading
        self.load_seconds = 0.0  # that loading took
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """Where it is in its life."""
        if self._draining:
            return "draining"
        if self._failure:
            return "failed"
        return "ready" if self._resource is not None else "loading"

    def start(self) -> None:
        """Begin to load, unless this process has already."""
        with self._lock:
            if self._pid != os.getpid():  # a fork takes no threads along
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="load", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until loading has ended, well or not, or draining begun; tell whether it has."""
        self._waited_for = True
        return self._settled.wait(seconds)

    def get(self) -> T:
        """Return the resource; `Loading`, `Draining` or, if it failed, a plain `ApiError`."""
        if self._draining:
            raise Draining("the server is shutting down", retry_after=5)
        if self._failure:
            raise ApiError("the model could not be loaded")
        if self._resource is None:
            raise Loading("the model is still loading", retry_after=2)
        return self._resource

    def peek(self) -> T | None:
        """Return the resource, or None while there is none."""
        return self._resource

    def close(self, grace: float) -> None:
        """Refuse what is new, and end what runs within `grace` seconds."""
        self._draining = True
        self._settled.set()
        if self._resource is not None:
            self._resource.close(grace)

    def _run(self) -> None:
        started = time.monotonic()
        self.start_seconds = round(started - _PROCESS_STARTED, 3)
        try:
            self._resource = self._load()
        except ModelError as error:
            self._failure = str(error)
            log.error("the model is refused: %s", error)
            self._refuse(str(error))
        except Exception as error:
            self._failure = str(error) or type(error).__name__
            log.exception("the model could not be loaded")
            self._refuse(f"the model could not be loaded: {error}")
        else:
            self.load_seconds = round(time.monotonic() - started, 3)
            phases = {"start_s": self.start_seconds, "load_s": self.load_seconds}
            log.info("ready", extra={"fields": phases})
            self._settled.set()

    def _refuse(self, message: str) -> None:
        """End the whole server: a restart would find the same checkpoint."""
        with contextlib.suppress(OSError):  # of a full disk
            print(f"piBLOOM: {message}", file=sys.stderr, flush=True)
        self._settled.set()
        if self._waited_for:
            time.sleep(LAST_WORDS)
        os._exit(REFUSED)
