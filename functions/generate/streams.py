"""Waiting for replies, whole or sent as they are written: what all families of routes share."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from flask import Request as HttpRequest
from flask import Response

from functions import errors
from functions.generate import submission
from functions.http.replies import as_api_error
from model.serving import events

Take = Callable[[int, events.Event], object]


def read(request: HttpRequest, submitted: Sequence[events.Generation], take: Take) -> None:
    """Hand every event of the generations to `take`, with its place; raises when one fails."""
    try:
        for found in submission.follow(submitted, request):
            if found is not None:
                take(*found)
    finally:
        submission.cancel(submitted)


def send(
    submitted: Sequence[events.Generation],
    lines: Iterator[bytes],
    *,
    headers: Mapping[str, str],
    heartbeat: Callable[[], bytes],
    failed: Callable[[errors.ApiError], bytes],
) -> Response:
    """Reply with `lines`, which ends with a terminal one, and cancel the generations at its end.

    An empty line says that there is nothing to send yet; `heartbeat` makes what is sent instead
    after `submission.HEARTBEAT` seconds of silence. When `lines` raises, `failed` makes the last
    line.
    """

    def guarded() -> Iterator[bytes]:
        spoken = time.monotonic()
        try:
            for line in lines:
                due = time.monotonic() - spoken >= submission.HEARTBEAT
                if found := line or (heartbeat() if due else b""):
                    spoken = time.monotonic()
                    yield found
        except errors.ClientGone:
            return
        except Exception as error:
            yield failed(as_api_error(error))
        finally:
            submission.cancel(submitted)

    response = Response(guarded(), headers=dict(headers))
    response.call_on_close(
        lambda: submission.cancel(submitted)
    )  # a stream never begun cannot itself
    return response
