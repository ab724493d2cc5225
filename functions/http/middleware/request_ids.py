"""Each request's id, and its place in a distributed trace (W3C Trace Context)."""

import re
import secrets

from flask import Request, Response, g

# Compiled at the first request rather than at the start.
_TRACEPARENT = "00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_REQUEST_ID = r"[A-Za-z0-9_.:-]{1,64}"


def assign(request: Request) -> None:
    """Keep the id and the traceparent that a request brings, or give it an id of our own."""
    trace = request.headers.get("traceparent", "")
    g.trace = trace if re.fullmatch(_TRACEPARENT, trace) else ""
    given = request.headers.get("X-Request-Id", "")
    g.request_id = (
        given if re.fullmatch(_REQUEST_ID, given) else trace_id() or secrets.token_hex(16)
    )


def trace_id() -> str:
    """Return the id of the trace that the running request belongs to, or nothing."""
    trace: str = g.trace
    return trace.split("-")[1] if trace else ""


def add_headers(response: Response) -> None:
    """Tell the client its request's id and trace."""
    response.headers["X-Request-Id"] = g.request_id
    if g.trace:
        response.headers["traceparent"] = g.trace
