"""Following generations, and sending replies whole or as they are written.

All families of routes wait here for events, send heartbeats, notice that a client left, and end
generations that no client waits for.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from flask import Request as HttpRequest
from flask import Response

from functions import errors, sse
from functions.http.clients import client_left
from functions.http.replies import as_api_error
from model.serving import events

TICK = 0.25  # seconds between two checks that the client is still there
HEARTBEAT_SECONDS = 5.0  # of silence, after which a stream sends a heartbeat

Found = tuple[int, events.Event] | None  # an event and its generation's place


def follow(generations: Sequence[events.Generation], request: HttpRequest) -> Iterator[Found]:
    """Yield the generations' events, each with its generation's place.

    None comes when `TICK` seconds pass without an event. Raises `ClientGone` once the client has
    left, `DeadlineExceeded`, and the matching `ApiError` when a generation fails. A caller that
    stops early must cancel the generations.
    """
    for found in events.events_of(generations, TICK):
        if client_left(request.environ):
            raise errors.ClientGone("the client left")
        if found is None:
            _check_deadline(generations[0])
        elif isinstance(found[1], events.Failed):
            raise _error_of(found[1])
        yield found


def _check_deadline(generation: events.Generation) -> None:
    """Raise at the deadline even when the engine hangs, and so cannot end the generation itself."""
    if generation.request.deadline is not None and time.monotonic() > generation.request.deadline:
        raise errors.DeadlineExceeded("the request took longer than its deadline allows")


def _error_of(failed: events.Failed) -> errors.ApiError:
    match failed.kind:
        case "deadline":
            return errors.DeadlineExceeded(failed.message)
        case "draining":
            return errors.Draining(failed.message, retry_after=5)
        case "cancelled":
            return errors.ClientGone(failed.message)
        case _:
            return errors.ApiError("the model failed to generate")


def cancel(generations: Sequence[events.Generation]) -> None:
    """End generations within one step of the engine; those that are done are left alone."""
    for generation in generations:
        generation.cancel()


def read(
    request: HttpRequest,
    generations: Sequence[events.Generation],
    take: Callable[[int, events.Event], object],
) -> None:
    """Hand every event to `take`, with its generation's place, until all generations are done.

    Raises what `follow` raises; all generations are cancelled at the end.
    """
    try:
        for found in follow(generations, request):
            if found is not None:
                take(*found)
    finally:
        cancel(generations)


def send(
    generations: Sequence[events.Generation],
    lines: Iterator[bytes],
    *,
    headers: Mapping[str, str],
    heartbeat: Callable[[], bytes],
    failed: Callable[[errors.ApiError], bytes],
) -> Response:
    """Reply with `lines`, the last of which ends the stream, and then cancel the generations.

    An empty line says that there is nothing to send yet; after `HEARTBEAT_SECONDS` of silence, what
    `heartbeat` returns is sent in its place. When `lines` raises, `failed` makes the last line.
    `lines` may add to `generations` while it runs.
    """

    def guarded() -> Iterator[bytes]:
        sent_at = time.monotonic()
        try:
            for line in lines:
                due = time.monotonic() - sent_at >= HEARTBEAT_SECONDS
                if sent := line or (heartbeat() if due else b""):
                    sent_at = time.monotonic()
                    yield sent
        except errors.ClientGone:
            return
        except Exception as error:
            yield failed(as_api_error(error))
        finally:
            cancel(generations)

    response = Response(guarded(), headers=dict(headers))
    # If the stream is closed before its first line, `guarded` never starts.
    response.call_on_close(lambda: cancel(generations))
    return response


def send_events(
    generations: Sequence[events.Generation],
    lines: Iterator[bytes],
    *,
    failed: Callable[[errors.ApiError], bytes],
) -> Response:
    """Reply with `lines` as server-sent events; the rest is as in `send`."""
    return send(
        generations,
        chain([sse.OPENING], lines),
        headers=sse.HEADERS,
        heartbeat=lambda: sse.HEARTBEAT,
        failed=failed,
    )
