"""The routes by which a cluster watches a process: /healthz, /readyz and /metrics."""

from collections.abc import Callable, Sequence

from flask import Request, Response

from functions.errors import ApiError
from functions.http.replies import json_reply
from functions.http.routing import Route
from functions.metrics import CONTENT_TYPE, Registry


def probes(
    state: Callable[[], str],
    check: Callable[[], object],
    alive: Callable[[], bool] = lambda: True,
) -> Sequence[Route]:
    """Return the routes /healthz and /readyz; `check` raises the error of what is not ready.

    A process that is not `alive` any more should be ended and started again.
    """

    def healthz(request: Request) -> Response:
        if not alive():
            raise ApiError("the engine has ended, or hangs")
        return json_reply({"status": "ok"})

    def readyz(request: Request) -> Response:
        check()
        return json_reply({"status": state()})

    return [("GET", "/healthz", healthz), ("GET", "/readyz", readyz)]


def metrics_route(metrics: Registry) -> Route:
    """Return the route /metrics."""

    def scrape(request: Request) -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)

    return ("GET", "/metrics", scrape)
