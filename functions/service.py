"""A function's model or tokenizer: loaded once, in the background, after any fork."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, Protocol, TypeVar

from functions import process
from functions.errors import ApiError, Draining, Loading
from model.errors import ModelError

REFUSED = 3  # exit code when the checkpoint cannot be used; gunicorn starts no worker after it
# In which streams that waited for the model can tell their clients that it failed to load.
FAREWELL_SECONDS = 1.0

log = logging.getLogger(__name__)


class Closable(Protocol):
    """What a service loads."""

    def close(self, grace: float = 0.0) -> None:
        """End what runs, after at most `grace` seconds."""


# That of the server, which imports this before it forks its worker.
_PROCESS_STARTED = time.monotonic() - process.age()

T = TypeVar("T", bound=Closable)
State = Literal["loading", "ready", "draining", "failed"]


class Service(Generic[T]):
    """Loads a resource in a thread of its own, and knows whether it is there yet.

    The loading thread writes the attributes, but for `_draining`, which is the closing thread's;
    any thread may read them. The lock is for `start` only.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._resource: T | None = None
        self._failure = ""
        self._draining = False
        self._settled = threading.Event()  # loaded, failed, or draining
        self._has_waiters = False
        self._pid = 0
        self.start_seconds = 0.0  # from the process's start to that of loading
        self.load_seconds = 0.0  # that loading took
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """Whether it is loading, ready, draining or failed."""
        if self._draining:
            return "draining"
        if self._failure:
            return "failed"
        return "ready" if self._resource is not None else "loading"

    def start(self) -> None:
        """Begin to load, unless this process has begun already."""
        with self._lock:
            if self._pid != os.getpid():  # a fork takes no threads along
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="load", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` until loading ends, well or not; tells whether it has.

        Draining ends the wait too.
        """
        self._has_waiters = True
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
        """Refuse new requests, and end what runs within `grace` seconds."""
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
        if self._has_waiters:
            time.sleep(FAREWELL_SECONDS)
        os._exit(REFUSED)
