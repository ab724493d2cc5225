"""Submitting requests to the scheduler: deadlines, prompts, and why one may be refused."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import flask
from flask import Request as HttpRequest
from flask import g

from functions import errors, ranges
from functions.http.middleware.keys import TENANT
from functions.http.middleware.uploads import LARGE
from functions.http.quoting import shortened
from model.engine.native import default_threads
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.serving import admission, events
from model.serving.request import GenerationRequest
from model.text.chat import ChatError

PREPARING_SECONDS = 10.0  # that a prompt waits at most until those before it are tokenized
# Prompts are tokenized on the processors that the engine runs on: on half of them at most, and on
# one more for long requests, which take hundreds of times as long and wait in a line of their own.
_preparing = threading.BoundedSemaphore(max(1, default_threads() // 2))
_preparing_long = threading.BoundedSemaphore(1)
_long = threading.BoundedSemaphore(8)  # long ones in that line; each holds a place and a thread
DEADLINE_HEADER = "X-Request-Timeout"

Conversation = Sequence[Mapping[str, Any]]  # messages as chat templates take them


def deadline_of(request: HttpRequest, longest: float) -> float:
    """Return when a request must be done, on the clock of `time.monotonic`.

    That is `longest` seconds after its arrival, or sooner if its header says so. Raises
    `InvalidField` for a header that is not a number above 0.
    """
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


def check_model_name(model: LoadedModel, name: str | None) -> None:
    """Raise `ModelNotFound` for the name of another model than the one that is served.

    An empty name is as none: clients send it where nobody chose a model.
    """
    if name and name != model.info.name:
        raise errors.ModelNotFound(
            f"the model {shortened(name)!r} is not served here; {model.info.name!r} is",
            param="model",
        )


def prompt_ids(model: LoadedModel, prompt: str | Conversation) -> tuple[int, ...]:
    """Return the ids of a text to continue, or of a conversation to answer.

    Raises `ChatError` when the chat template refuses the conversation.
    """
    if isinstance(prompt, str):
        return tuple(model.tokenizer.ids(prompt))
    return tuple(model.tokenizer.ids(model.chat.render(prompt), add_special_tokens=False))


def generation_request(
    model: LoadedModel,
    prompt: str | Conversation,
    limit: int | None,
    sampling: SamplingParams,
    stop: tuple[str, ...],
    deadline: float,
    logprobs: int | None = None,
) -> GenerationRequest:
    """Return the request to continue a text, or to answer a conversation.

    The reply has at most `limit` tokens, or else as many as there is room for; `logprobs` is that
    of `GenerationRequest`. Raises `ChatError` when the chat template refuses the conversation, and
    `InvalidField` when there is nothing to answer.
    """
    ids = prompt_ids(model, prompt)
    if not ids:
        raise errors.InvalidField("there is no text to answer", param=None)
    if not isinstance(prompt, str):
        stop += model.chat.stop
    room = max(1, model.scheduler.max_context - len(ids))
    tokens = min(limit or room, ranges.MOST_TOKENS)
    return GenerationRequest(ids, tokens, sampling, stop, deadline, logprobs)


def submit(
    model: LoadedModel,
    prepare: Callable[[], Sequence[GenerationRequest]],
    param: str,
    *,
    replies: int = 1,
    background: bool = False,
    request: HttpRequest | None = None,
) -> list[events.Generation]:
    """Queue the `replies` requests that `prepare` returns; raises the `ApiError` of a refusal.

    `prepare` renders and tokenizes, so it is called once places are reserved: a refusal by a full
    queue costs nothing. `param` is the field that the prompt came from. `request` must be given
    where Flask's context of the request has ended. One in the `background` is refused while
    anything else is generated.
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
            with _turn_to_prepare(size, 0 if background else PREPARING_SECONDS):
                requests = prepare()
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
def _turn_to_prepare(size: int, seconds: float) -> Iterator[None]:
    """Wait at most `seconds` until a request of `size` bytes may be rendered and tokenized."""
    refusal = errors.Overloaded("too many prompts are being read at once", retry_after=1)
    with ExitStack() as held:
        turns = _preparing
        if size > LARGE:
            turns = _preparing_long
            if not _long.acquire(blocking=False):
                raise refusal
            held.callback(_long.release)
        if not turns.acquire(timeout=seconds):
            raise refusal
        held.callback(turns.release)
        yield
