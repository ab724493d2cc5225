"""What all routes of generation have in common: submitting, waiting, and how it may fail."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import flask
from flask import Request as HttpRequest
from flask import g

from functions import errors
from functions.http.clients import client_left
from functions.http.middleware.keys import TENANT
from functions.http.middleware.uploads import LARGE
from model.engine.native import default_threads
from model.load import LoadedModel
from model.serving import admission, events
from model.serving.request import GenerationRequest
from model.text.chat import ChatError

TICK = 0.25  # seconds between two looks at whether the client is still there
HEARTBEAT = 5.0  # seconds of silence after which a stream says that it lives
MAKING_SECONDS = 10.0  # that a prompt waits for those before it to be tokenized
# Prompts are tokenized by the processors that the engine runs on: half of them at most, and one
# more for long requests, which take hundreds of times as long and wait in a line of their own.
_making = threading.BoundedSemaphore(max(1, default_threads() // 2))
_making_long = threading.BoundedSemaphore(1)
_long = threading.BoundedSemaphore(8)  # long ones in that line; each holds a place and a thread
DEADLINE_HEADER = "X-Request-Timeout"


def deadline_of(request: HttpRequest, longest: float) -> float:
    """Return when a request must be done, counted from its arrival; its header may shorten it."""
    seconds = longest
    if (given := request.headers.get(DEADLINE_HEADER)) is not None:
        try:
            wanted = float(given)
        except ValueError:
            wanted = 0.0
        if not 0 < wanted < math.inf:
            raise errors.InvalidField(
                f"{DEADLINE_HEADER} must be a number of seconds above 0", param=DEADLINE_HEADER
            )
        seconds = min(seconds, wanted)
    arrived: float = g.arrived
    return arrived + seconds


def submit(
    model: LoadedModel,
    make: Callable[[], Sequence[GenerationRequest]],
    param: str,
    *,
    replies: int = 1,
    background: bool = False,
    request: HttpRequest | None = None,
) -> list[events.Generation]:
    """Queue the `replies` requests that `make` makes; raises the fitting `ApiError`.

    `make` renders and tokenizes, so it is called once places are reserved, and a refusal costs
    nothing. `param` is the field that the prompt came from. `request` is for who asks after the
    end of its context. One in the `background` is refused while anybody else is served.
    """
    tenant: str | None = (request or flask.request).environ.get(TENANT)
    if replies > model.scheduler.limits.most_at_once:
        raise errors.InvalidField(
            f"{replies} replies are asked for at once; at most"
            f" {model.scheduler.limits.most_at_once} fit here",
            param="n",
        )
    try:
        size = len((request or flask.request).get_data())
        with model.scheduler.reserve(replies, background=background) as reservation:
            with _turn(size, 0 if background else MAKING_SECONDS):
                requests = make()
            return reservation.fill(
                [replace(each, tenant=tenant, background=background) for each in requests]
            )
    except ChatError as error:
        raise errors.InvalidField(str(error), param="messages") from None
    except admission.PromptTooLong as error:
        raise errors.ContextFull(
            str(error),
            param=param,
            prompt_tokens=error.prompt_tokens,
            max_context=error.max_context,
        ) from None
    except admission.QueueFull as error:
        raise errors.Overloaded(str(error), retry_after=error.retry_after) from None
    except admission.ShuttingDown:
        raise errors.Draining("the server is shutting down", retry_after=5) from None


@contextmanager
def _turn(size: int, seconds: float) -> Iterator[None]:
    """Wait for the turn of a request of so many bytes to be rendered and tokenized."""
    refusal = errors.Overloaded("too many prompts are being read at once", retry_after=1)
    with ExitStack() as held:
        turns = _making
        if size > LARGE:
            turns = _making_long
            if not _long.acquire(blocking=False):
                raise refusal
            held.callback(_long.release)
        if not turns.acquire(timeout=seconds):
            raise refusal
        held.callback(turns.release)
        yield


def follow(
    generations: Sequence[events.Generation], request: HttpRequest
) -> Iterator[tuple[int, events.Event] | None]:
    """Yield the generations' events, None at each look without one; raises when one of them fails.

    `ClientGone` comes as soon as nobody listens. Whoever stops early must cancel them.
    """
    for found in events.events_of(generations, TICK):
        if client_left(request.environ):
            raise errors.ClientGone("the client left")
        if found is None:
            check_deadline(generations[0])
        elif isinstance(found[1], events.Failed):
            raise failure(found[1])
        yield found


def cancel(generations: Sequence[events.Generation]) -> None:
    """End generations within one step of the engine; for one that is done it does nothing."""
    for generation in generations:
        generation.cancel()


def check_deadline(generation: events.Generation) -> None:
    """Raise at the deadline even when the engine hangs, and so cannot end the generation itself."""
    if generation.request.deadline is not None and time.monotonic() > generation.request.deadline:
        raise errors.DeadlineExceeded("the request took longer than its deadline allows")


def failure(failed: events.Failed) -> errors.ApiError:
    """Return the error that a failed generation is answered with."""
    match failed.kind:
        case "deadline":
            return errors.DeadlineExceeded(failed.message)
        case "draining":
            return errors.Draining(failed.message, retry_after=5)
        case "cancelled":
            return errors.ClientGone(failed.message)
        case _:
            return errors.ApiError("the model failed to generate")


def timings(done: events.Done) -> dict[str, float]:
    """Return what a reply tells of its speed, in milliseconds and tokens a second."""
    return {
        "queued_ms": round(done.queued_s * 1000, 1),
        "prefill_ms": round(done.prefill_s * 1000, 1),
        "decode_ms": round(done.decode_s * 1000, 1),
        "tokens_per_second": round(done.tokens_per_second, 1),
    }
