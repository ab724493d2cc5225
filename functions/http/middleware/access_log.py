"""One log line, one count and one duration for each request."""

import logging
import time

from flask import Request, Response, g

from functions.http.middleware import request_ids
from functions.http.quoting import shortened
from functions.metrics import Registry

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

log = logging.getLogger("access")


class AccessLog:
    """Measures requests from their arrival to the last byte of their reply."""

    def __init__(self, metrics: Registry) -> None:
        self.answered = metrics.counter(
            "pibloom_requests_total", "Requests by path, method and status."
        )
        self._seconds = metrics.histogram(
            "pibloom_request_seconds", "From a request's arrival to its last byte."
        )

    def start(self) -> None:
        """Note when the running request arrived."""
        g.started, g.arrived = time.perf_counter(), time.monotonic()

    def write_at_end(self, request: Request, response: Response) -> None:
        """Log and count a request once the last byte of its reply is sent."""
        fields = {
            "method": request.method,
            "path": shortened(request.path, 200),
            "status": response.status_code,
            "request_id": g.request_id,
        }
        if trace_id := request_ids.trace_id():
            fields["trace_id"] = trace_id
        # Labels have few values: a stranger could else fill the memory with counters.
        path: str = g.get("route", "other")
        method = request.method if request.method in _METHODS else "other"
        started: float = g.started

        def end() -> None:
            seconds = time.perf_counter() - started
            self.answered.add(path=path, method=method, code=str(fields["status"]))
            self._seconds.observe(seconds)
            fields["ms"] = round(seconds * 1000, 1)
            log.info("%(method)s %(path)s", fields, extra={"fields": fields})

        response.call_on_close(end)
