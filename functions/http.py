"""Requests in, replies out: routes, body checks, and errors in their one shape.

A function's `main.py` holds a table of routes and calls it with each request. Whatever is wrong
with a request, at whichever layer it is found, the answer is one of `functions.errors`.
"""

import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound
from werkzeug.routing import Map, Rule

from functions.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    InvalidField,
    MethodNotAllowed,
    NotFound,
    NotJson,
    UnsupportedMediaType,
)

Handler = Callable[[Request], Response]
Body = TypeVar("Body")

log = logging.getLogger("access")


class Routes:
    """A table of (method, path, handler), called with each request."""

    def __init__(self, *table: tuple[str, str, Handler]) -> None:
        rules = [Rule(path, methods=[method], endpoint=handler) for method, path, handler in table]
        self._map = Map(rules, strict_slashes=False, merge_slashes=False)

    def __call__(self, request: Request) -> Response:
        """Answer a request; never raises."""
        started = time.perf_counter()
        try:
            response = self._answer(request)
        except Exception as error:
            response = as_api_error(error).response()

        def log_access() -> None:
            fields = {
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "ms": round((time.perf_counter() - started) * 1000, 1),
            }
            log.info("%s %s", request.method, request.path, extra={"fields": fields})

        response.call_on_close(log_access)
        return response

    def _answer(self, request: Request) -> Response:
        adapter = self._map.bind("", path_info=request.path)
        if request.method == "OPTIONS" and (allowed := list(adapter.allowed_methods())):
            return Response(status=204, headers={"Allow": ", ".join(sorted([*allowed, "OPTIONS"]))})
        try:
            handler, _ = adapter.match(method=request.method)
        except WerkzeugNotFound:
            raise NotFound("there is nothing at this path") from None
        except WerkzeugMethodNotAllowed as error:
            raise MethodNotAllowed(request.method, sorted(error.valid_methods or ())) from None
        response: Response = handler(request)
        return response


def install(app: Flask) -> None:
    """Give Flask's own errors, from before a function is reached, the same shape."""

    def answer(error: Exception) -> Response:
        return as_api_error(error).response()

    app.register_error_handler(Exception, answer)
    # "//" is simply another path; Flask would redirect it, in HTML.
    app.url_map.merge_slashes = app.url_map.redirect_defaults = False


def as_api_error(error: Exception) -> ApiError:
    """Turn any exception into an error that may be shown; the unexpected ones are logged."""
    match error:
        case ApiError():
            return error
        case RequestEntityTooLarge():
            return BodyTooLarge("the body is larger than the server takes")
        case WerkzeugMethodNotAllowed():
            return MethodNotAllowed("this method", sorted(error.valid_methods or ()))
        case WerkzeugNotFound():
            return NotFound("there is nothing at this path")
        case HTTPException(code=int(code)) if 400 <= code < 500:
            return BadRequest("the request cannot be understood")
    log.error("a request failed: %s", type(error).__name__, exc_info=error)
    return ApiError("the server failed to answer this request")


def json_reply(data: object, status: int = 200) -> Response:
    """Reply with JSON."""
    return Response(msgspec.json.encode(data), status, content_type="application/json")


def read_body(request: Request, type_: type[Body], limit: int) -> Body:
    """Read and check a JSON body of at most `limit` bytes; raises the error that fits."""
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(
            f"the body has {request.content_length} bytes; at most {limit} are taken",
            limit=limit,
            given=request.content_length,
        )
    if request.mimetype != "application/json":
        given = request.mimetype or "nothing"
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {given[:80]}")
    # A chunked body, whose length nobody announced, is read up to this and then left.
    request.max_content_length = limit + 1
    data = request.get_data()
    if len(data) > limit:
        raise BodyTooLarge(f"at most {limit} bytes are taken", limit=limit)
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"the body is no JSON: {error}") from None
    try:
        return msgspec.convert(raw, type_, strict=True)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), raw) from None


def _invalid(message: str, raw: object) -> InvalidField:
    """Say which field is wrong, what it must be, and what was given."""
    expected, _, path = message.partition(" - at `$")
    param = path.removesuffix("`").removeprefix(".") or None
    for phrase in ("Object contains unknown field", "Object missing required field"):
        if expected.startswith(phrase):
            name = expected.split("`")[1]
            param = f"{param}.{name}" if param else name
            problem = "is missing" if "missing" in phrase else "is not known here"
            return InvalidField(f"the field {_short(param)} {problem}", param=_short(param))
    if expected.startswith("Invalid enum value"):
        expected = "Expected one of the documented values"  # msgspec's own words echo the text
    given = _describe(_at(raw, path.removesuffix("`")))
    where = f"{_short(param)}: " if param else ""
    return InvalidField(f"{where}{expected}, but got {given}", param=param and _short(param))


def _at(raw: object, path: str) -> object:
    """Follow a path such as `.messages[0].role` into decoded JSON."""
    for part in path.replace("[", ".[").split("."):
        if part.startswith("[") and isinstance(raw, list):
            index = part[1:-1]
            raw = raw[int(index)] if index.isdecimal() and int(index) < len(raw) else raw
        elif part and isinstance(raw, dict):
            raw = raw.get(part)
    return raw


def _describe(value: object) -> str:
    """Name a value without echoing what may be a prompt."""
    match value:
        case str():
            return f"a text of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return _short(msgspec.json.encode(value).decode())


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def client_left(environ: dict[str, Any]) -> bool:
    """Tell whether the other end of the request's socket is closed, without waiting or reading.

    A WSGI server says nothing of it until a write fails, and a reply that is not streamed writes
    nothing before its end.
    """
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        if not poller.poll(0):
            return False
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


def probes(
    state: Callable[[], str], check: Callable[[], object]
) -> Sequence[tuple[str, str, Handler]]:
    """Return the routes /healthz and /readyz; `check` raises the error of what is not ready."""

    def healthz(request: Request) -> Response:
        return json_reply({"status": "ok"})

    def readyz(request: Request) -> Response:
        check()
        return json_reply({"status": state()})

    return [("GET", "/healthz", healthz), ("GET", "/readyz", readyz)]
