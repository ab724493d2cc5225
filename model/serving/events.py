"""The events of a generation, and the queue by which they reach its client."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from model.serving.request import GenerationRequest

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Queued:
    """Waiting for a place; position 1 is the next one."""

    position: int


@dataclass(frozen=True)
class Prefill:
    """The model has read `done` of the prompt's `total` tokens.

    Tokens that were cached by another tenant's request count as if they were read now.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Likelihood:
    """A token's log-probability (natural) by the model alone, before penalties and sampling."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest ids and their log-probabilities


@dataclass(frozen=True)
class Token:
    """A token was drawn; `text` is empty while a character or a stop string may be incomplete."""

    id: int
    text: str
    likelihood: Likelihood | None = None


@dataclass(frozen=True)
class PromptToken:
    """The likelihood of a token of the prompt, from its second one on, where it was asked for."""

    id: int
    likelihood: Likelihood


@dataclass(frozen=True)
class Done:
    """The end of a reply; `text` is the whole reply, and times are in seconds."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int
    queued_s: float
    prefill_s: float
    decode_s: float
    cached_tokens: int = 0  # of the prompt, cached from requests of the same tenant

    @property
    def tokens_per_second(self) -> float:
        """How fast the reply was written; 0 for a reply of one token.

        The prompt's last step gives the first token, so `decode_s` is the time of the others.
        """
        others = self.completion_tokens - 1
        return others / self.decode_s if others > 0 and self.decode_s > 0 else 0.0


@dataclass(frozen=True)
class Failed:
    """The end of a generation that did not finish its reply."""

    kind: Literal["cancelled", "deadline", "draining", "internal"]
    message: str


Event = Queued | Prefill | PromptToken | Token | Done | Failed


class Generation:
    """A submitted request as its client sees it: events to read, and a way to cancel.

    Any thread may call any method.
    """

    def __init__(
        self, request: GenerationRequest, events: "Events | None" = None, *, alone: bool = True
    ) -> None:
        """Wrap a request; requests that were submitted together share `events`."""
        self.alone = alone
        self.request = request
        self.submitted = time.monotonic()
        self.shared: Events = queue.SimpleQueue() if events is None else events
        self._cancelled = False
        self._ending = threading.Lock()  # taken for good by the last event

    @property
    def cancelled(self) -> bool:
        """Whether its client has cancelled it."""
        return self._cancelled

    def cancel(self) -> None:
        """End it after the current step; Failed("cancelled") comes last, unless it was done."""
        self._cancelled = True

    def put(self, event: Event) -> None:
        """Hand an event to the client; for the scheduler.

        Done or Failed is the last event and comes once; later events are dropped.
        """
        if not isinstance(event, Done | Failed):
            if not self._ending.locked():
                self.shared.put((self, event))
        elif self._ending.acquire(blocking=False):
            try:
                self.shared.put((self, event))
            except BaseException:
                self._ending.release()  # it was not delivered, so another may be
                raise

    def events(self, heartbeat: float | None = None) -> Iterator[Event | None]:
        """Yield events up to Done or Failed, one of which always comes.

        None comes after each `heartbeat` seconds without an event.
        """
        for found in events_of([self], heartbeat):
            yield None if found is None else found[1]


Events = queue.SimpleQueue[tuple[Generation, Event]]


def events_of(
    generations: Sequence[Generation], heartbeat: float | None = None
) -> Iterator[tuple[int, Event] | None]:
    """Yield the events of generations that were submitted together, with the index of each.

    Each generation ends with Done or Failed. None comes after `heartbeat` seconds without an event.
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
