"""Which requests wait, which have a place in the batch, and which are refused.

A request that finds room waits in a queue until it is its turn for one of the places in the batch.
The scheduler's thread asks which is next, and reports which have begun and ended; the threads of
requests reserve room and fill it.
"""

import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence

from model.limits import Limits
from model.serving.events import Events, Generation, Queued
from model.serving.request import GenerationRequest

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """There is no room for a request; in `retry_after` seconds there probably is."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class PromptTooLong(Exception):
    """A prompt leaves no room for a reply."""

    def __init__(self, prompt_tokens: int, max_context: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens; with at least one token of reply it must stay"
            f" within the context of {max_context}"
        )
        self.prompt_tokens, self.max_context = prompt_tokens, max_context


class ShuttingDown(Exception):
    """Nothing new is taken any more."""


class Admission:
    """The queue and the places in the batch.

    Any thread may call any method. Every field but the limits, which never change, is read and
    written only while `_changed` is held; a test enforces it. Only the scheduler's thread takes
    generations out of the queue or out of the batch, so for it the answers stay true.
    """

    def __init__(self, limits: Limits, max_context: int) -> None:
        """Take what is within `limits`; prompt and reply have at most `max_context` tokens.

        A single prompt may wait whatever its length: the limit of tokens is for several.
        """
        self._limits, self.max_context = limits, max_context
        self._changed = threading.Condition()  # notified when the scheduler may have work
        self._waiting: deque[Generation] = deque()
        self._running: dict[Generation, float] = {}  # and when each began, by time.monotonic()
        self._reserved: set[Reservation] = set()
        self._draining = False
        self._ending = False
        self._mean_seconds = 1.0  # that a generation runs: a moving average

    # For the threads of requests.

    def check_length(self, tokens: int) -> None:
        """Raise `PromptTooLong` for a prompt of so many tokens that no reply would fit."""
        if tokens >= self.max_context:
            raise PromptTooLong(tokens, self.max_context)

    def reserve(self, count: int = 1, *, background: bool = False) -> "Reservation":
        """Reserve room for requests that are yet to be made, since making them costs work.

        Raises `QueueFull` or `ShuttingDown`. What is not filled is given back when the `with` block
        of the reservation ends. There is room for a background request only while there is no
        other request, and others never wait because of it.
        """
        with self._changed:
            if background and self._busy():
                raise QueueFull(1)
            self._check_room(count)
            reservation = Reservation(self, count, background=background)
            self._reserved.add(reservation)
        return reservation

    def fill(
        self, reservation: "Reservation", requests: Sequence[GenerationRequest]
    ) -> list[Generation]:
        """Queue requests in the room that was reserved; see `Reservation.fill`."""
        for request in requests:
            self.check_length(len(request.prompt))
        events: Events = queue.SimpleQueue()
        alone = len(requests) == 1
        generations = [Generation(request, events, alone=alone) for request in requests]
        with self._changed:
            self._reserved.discard(reservation)
            self._check_room(len(requests), sum(len(request.prompt) for request in requests))
            for position, generation in enumerate(generations, start=len(self._waiting) + 1):
                generation.put(Queued(position))
            self._waiting.extend(generations)
            self._changed.notify()
        return generations

    def give_back(self, reservation: "Reservation") -> None:
        """Free the room of a reservation, unless it was filled."""
        with self._changed:
            self._reserved.discard(reservation)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits or has room reserved."""
        with self._changed:
            return not self._busy()

    def counts(self) -> tuple[int, int]:
        """Return how many generations wait, and how many run."""
        with self._changed:
            return len(self._waiting), len(self._running)

    def drain(self) -> None:
        """Take nothing new; what is here may finish."""
        with self._changed:
            self._draining = True
            self._changed.notify()

    def end(self) -> None:
        """Ask the scheduler to end all that is here."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    # For the scheduler's thread.

    @property
    def ending(self) -> bool:
        """Whether all that is here must end now."""
        with self._changed:
            return self._ending

    def wait_for_work(self) -> bool:
        """Wait until something is here; false when nothing is, and nothing will come any more."""
        with self._changed:
            while not (self._waiting or self._running or self._draining):
                self._changed.wait()
            return bool(self._waiting or self._running)

    def waiting(self) -> list[Generation]:
        """Return the queue, the oldest first."""
        with self._changed:
            return list(self._waiting)

    def everyone(self) -> list[Generation]:
        """Return all that waits or runs."""
        with self._changed:
            return [*self._waiting, *self._running]

    def next(self) -> Generation | None:
        """Return the next generation for a place in the batch; None without a place or a candidate.

        It is the oldest of those that have the fewest companions running. Of generations that were
        submitted together, as many replies to one request, not all places are taken: one is left to
        others, which may come at any time.
        """
        with self._changed:
            if len(self._running) >= self._limits.max_batch:
                return None
            companions = Counter(each.shared for each in self._running)
            in_company = sum(not each.alone for each in self._running)
            full = in_company >= max(1, self._limits.max_batch - 1)
            candidates = [each for each in self._waiting if each.alone or not full]
            return min(candidates, key=lambda each: companions[each.shared], default=None)

    def begin(self, generation: Generation, started: float) -> None:
        """Give a place in the batch to one that waited; `started` is by time.monotonic()."""
        with self._changed:
            self._waiting.remove(generation)
            self._running[generation] = started

    def leave(self, generation: Generation, *, finished: bool) -> None:
        """Take a generation's place back; how long it ran counts when it finished its reply."""
        with self._changed:
            started = self._running.pop(generation)
            if finished:
                self._mean_seconds += 0.2 * (time.monotonic() - started - self._mean_seconds)

    def remove(self, generations: Collection[Generation]) -> None:
        """Take generations out of the queue."""
        with self._changed:
            self._waiting = deque(each for each in self._waiting if each not in generations)

    def send_positions(self) -> None:
        """Send each generation in the queue its new position."""
        with self._changed:
            for position, generation in enumerate(self._waiting, start=1):
                try:
                    generation.put(Queued(position))
                except Exception:
                    log.exception("a generation's position could not be sent")

    # Only while `_changed` is held.

    def _busy(self) -> bool:
        return bool(self._running or self._waiting or self._reserved)

    def _check_room(self, count: int, tokens: int = 0) -> None:
        if self._draining:
            raise ShuttingDown
        waiting = [each.request for each in self._waiting if not each.request.background]
        running = sum(not each.request.background for each in self._running)
        reserved = sum(each.count for each in self._reserved if not each.background)
        queued_tokens = sum(len(request.prompt) for request in waiting)
        if running + len(waiting) + reserved + count > self._limits.most_at_once or (
            queued_tokens and queued_tokens + tokens > self._limits.max_queue_tokens
        ):
            raise QueueFull(self._retry_after())

    def _retry_after(self) -> int:
        """Estimate in how many seconds all that is here now will have ended."""
        ahead = len(self._waiting) + len(self._running)
        # Those that run now may take longer than those that have ended.
        ages = [time.monotonic() - started for started in self._running.values()]
        each = max(self._mean_seconds, sum(ages) / max(1, len(ages)))
        return max(1, math.ceil(each * ahead / self._limits.max_batch))


class Reservation:
    """Room for requests that are being made, held until its `with` block ends."""

    def __init__(self, admission: Admission, count: int, *, background: bool) -> None:
        self.count, self.background = count, background
        self._admission = admission

    def fill(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Queue requests that belong together, all or none; their events share one queue.

        Raises `PromptTooLong`, `ShuttingDown`, or `QueueFull` for more tokens than may wait.
        """
        return self._admission.fill(self, requests)

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.give_back(self)
