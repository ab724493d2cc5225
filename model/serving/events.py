"""What the scheduler answers: the events of a generation, and their way to its client."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from model.serving.request import GenerationRequest


@dataclass(frozen=True)
class Queued:
    """Waiting for a place; position 1 is the next one."""

    position: int


@dataclass(frozen=True)
class Prefill:
    """The model has read `done` of the prompt's `total` tokens.

    What is known from another tenant's request is told as if it were read.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Likelihood:
    """How likely the model itself found a token, before penalties, temperature and cuts."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest ids and their log-probabilities


@dataclass(frozen=True)
class Token:
    """A token was drawn; `text` is empty while a character or a stop string is incomplete."""

    id: int
    text: str
    likelihood: Likelihood | None = None


@dataclass(frozen=True)
class PromptToken:
    """How likely the prompt's next token was, from its second one on; only for those who ask."""

    id: int
    likelihood: Likelihood


@dataclass(frozen=True)
class Done:
    """The end of a reply; `text` is all of it."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    seed: int
    queued_s: float
    prefill_s: float
    decode_s: float
    cached_tokens: int = 0  # of the prompt, that were remembered from the same tenant's requests

    @property
    def tokens_per_second(self) -> float:
        """How fast it was written; 0 where no step was taken after the prompt's.

        The first token comes out of the prompt's last step, so `decode_s` is that of the others.
        """
        others = self.completion_tokens - 1
        return others / self.decode_s if others > 0 and self.decode_s > 0 else 0.0


@dataclass(frozen=True)
class Failed:
    """The end of a generation that gave no whole reply."""

    kind: Literal["cancelled", "deadline", "draining", "internal"]
    message: str


Event = Queued | Prefill | PromptToken | Token | Done | Failed


class Generation:
    """A submitted request, as its client holds it: events to read, and a way to cancel."""

    def __init__(
        self, request: GenerationRequest, events: "Events | None" = None, *, alone: bool = True
    ) -> None:
        """Take a request; `events` is shared by those that were submitted together, not alone."""
        self.alone = alone
        self.request = request
        self.submitted = time.monotonic()
        self.shared: Events = queue.SimpleQueue() if events is None else events
        self._cancelled = False
        self._ending = threading.Lock()  # taken for good by the last event

    @property
    def cancelled(self) -> bool:
        """Whether its client wants no more of it."""
        return self._cancelled

    def cancel(self) -> None:
        """End it within one step: unless it is done before, Failed("cancelled") comes last."""
        self._cancelled = True

    def put(self, event: Event) -> None:
        """Hand an event to the client; the scheduler's side.

        After Done or Failed nothing is handed over: it is the last event, and comes once.
        """
        if not isinstance(event, Done | Failed):
            if not self._ending.locked():
                self.shared.put((self, event))
        elif self._ending.acquire(blocking=False):
            try:
                self.shared.put((self, event))
            except BaseException:
                self._ending.release()  # it did not come, so another may
                raise

    def events(self, heartbeat: float | None = None) -> Iterator[Event | None]:
        """Yield events up to Done or Failed, one of which always comes.

        None is yielded after each `heartbeat` seconds without an event.
        """
        for found in events_of([self], heartbeat):
            yield None if found is None else found[1]


Events = queue.SimpleQueue[tuple[Generation, Event]]


def events_of(
    generations: Sequence[Generation], heartbeat: float | None = None
) -> Iterator[tuple[int, Event] | None]:
    """Yield the events of generations that were submitted together, each with its place.

    Each ends with Done or Failed; None is yielded after `heartbeat` seconds without an event.
    """
    places = {generation: place for place, generation in enumerate(generations)}
    left = len(places)
    while left:
        try:
            generation, event = generations[0].shared.get(timeout=heartbeat)
        except queue.Empty:
            yield None
            continue
        left -= isinstance(event, Done | Failed)
        yield places[generation], event
