"""Requests in, replies out: routes, body checks, and errors in their one shape.

A function's `main.py` holds a table of routes and calls it with each request; `install` adds to its
Flask app what every request goes through, whatever its path: the body's limit, one line of log, and
errors in their one shape. Whatever is wrong with a request, at whichever layer it is found, the
answer is one of `functions.errors`.
"""

import codecs
import functools
import gc
import hashlib
import hmac
import logging
import math
import re
import secrets
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound
from werkzeug.routing import Map, Rule
from werkzeug.wsgi import ClosingIterator

from functions import memory, process
from functions.errors import (
    ApiError,
    BadRequest,
    BodyIncomplete,
    BodyTooLarge,
    InvalidField,
    MethodNotAllowed,
    NotFound,
    NotJson,
    TooManyUploads,
    Unauthorized,
    UnsupportedMediaType,
    WrongKey,
)
from functions.metrics import CONTENT_TYPE, Registry
from functions.settings import Settings, keys_of, origins_of

if TYPE_CHECKING:
    from msgspec import inspect  # only a refusal needs it

Handler = Callable[..., Response]
Body = TypeVar("Body")
F = TypeVar("F", bound=Callable[..., Any])

LEFT = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last on Linux only

BODY_SECONDS = 10.0  # for a request's body to arrive
BODIES = 32  # that may be on their way at once; most are there with their head
LARGE = 64 << 10  # bytes from which on a body or an answer counts as large
LARGE_BODIES = 4  # of the largest size that may be in hand at once, or more that are smaller
COMPRESSED = 4096  # bytes from which on an answer is compressed for those who ask
LONG_DECODING = 0.005  # seconds; a usual body of 1 MB takes less
PATIENCE = 0.5  # seconds that a body waits for room
_uploads = threading.BoundedSemaphore(BODIES)
_reading: dict[socket.socket, float] = {}  # until when each body must be there

# msgspec's names of types are Python's.
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# Whose key a request brought, in its WSGI environment: a digest, with a secret of this process.
TENANT = "pibloom.tenant"
_PROBES = {"/healthz", "/readyz"}
_ALLOWED_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-Request-Id, X-Request-Timeout, traceparent"
)
_EXPOSED_HEADERS = "Retry-After, X-Request-Id, traceparent"
_TRACEPARENT = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)

log = logging.getLogger("access")


class Routes:
    """A table of (method, path, handler), called with each request."""

    def __init__(self, *table: tuple[str, str, Handler]) -> None:
        self.table = table
        rules = [Rule(path, methods=[method], endpoint=handler) for method, path, handler in table]
        self._map = Map(rules, strict_slashes=False, merge_slashes=False)

    def __call__(self, request: Request) -> Response:
        """Answer a request, or raise the `ApiError` that says why not."""
        if request.method == "OPTIONS" and request.environ.get("RAW_URI") == "*":
            every = {method for method, _, _ in self.table} | {"HEAD", "OPTIONS"}
            return Response(status=204, headers={"Allow": ", ".join(sorted(every))})
        adapter = self._map.bind("", path_info=request.path)
        if request.method == "OPTIONS" and (allowed := list(adapter.allowed_methods())):
            return Response(status=204, headers={"Allow": ", ".join(sorted([*allowed, "OPTIONS"]))})
        try:
            rule, found = adapter.match(method=request.method, return_rule=True)
        except WerkzeugNotFound:
            raise NotFound(self._where_to(request)) from None
        except WerkzeugMethodNotAllowed as error:
            allowed = sorted(error.valid_methods or ())
            raise MethodNotAllowed(request.method, _short(request.path), allowed) from None
        g.route = rule.rule
        handler: Handler = rule.endpoint
        response: Response = handler(request, **found)
        return response

    def _where_to(self, request: Request) -> str:
        """Say that there is nothing at a request's path, and which path may be meant."""
        path = request.path.rstrip("/").lower()
        paths = {path for _, path, _ in self.table if len(path) > 1}
        # A base URL with /v1 twice, or without it.
        meant = [each for each in sorted(paths) if path and _ends_alike(path, each.rstrip("/"))]
        said = [f"there is nothing at {_short(request.method)} {_short(request.path)}"]
        if any(each.startswith("/v1/") for each in paths):
            said.append("the base URL of OpenAI's clients is this server's address with /v1")
        said.append("every route is in /openapi.json")
        if meant:
            said.append(f"is {meant[-1]} meant?")
        return "; ".join(said)


def _ends_alike(one: str, other: str) -> bool:
    return one.endswith(other) or other.endswith(one)


def install(app: Flask, settings: Settings, metrics: Registry) -> None:
    """Put every request of an app, whatever its path, through what all have in common.

    A body of bounded size, a key where keys are set, one line of log, one count, errors in their
    one shape, and headers that keep browsers from guessing.
    """
    keys = [key.encode() for key in keys_of(settings)]
    secret = secrets.token_bytes(32)
    tenants = [hashlib.blake2b(key, key=secret, digest_size=16).hexdigest() for key in keys]
    origins = origins_of(settings)
    large = Bytes(LARGE_BODIES * settings.max_body)
    answered = metrics.counter("pibloom_requests_total", "Requests by path, method and status.")
    process.observe(metrics)
    app.extensions["pibloom.answered"] = answered  # for the server: what is no HTTP counts too
    took = metrics.histogram(
        "pibloom_request_seconds", "From a request's arrival to its last byte."
    )

    @app.before_request
    def arrive() -> Response | None:
        g.started, g.arrived = time.perf_counter(), time.monotonic()
        g.request_id, g.trace = _ids(request)
        if request.method == "OPTIONS" and request.headers.get("Origin") in origins:
            # A browser's question, which carries no key; a body would stay unread, as in errors.
            return Response(iter(()), status=204)
        open_paths = _PROBES | ({"/metrics"} if settings.open_metrics else set())
        if keys and request.path.rstrip("/") not in open_paths:
            request.environ[TENANT] = tenants[_check_key(request, keys)]
        take_body(request, settings.max_body, large)
        return None

    @app.after_request
    def leave(response: Response) -> Response:
        if (give := g.get("let_go")) and response.is_streamed:
            response.call_on_close(give)  # what was asked is held until the stream's end
        else:
            let_go()
        compress(request, response)
        fields = {
            "method": request.method,
            "path": _short(request.path, 200),
            "status": response.status_code,
            "request_id": g.request_id,
        }
        if g.trace:
            fields["trace_id"] = g.trace.split("-")[1]
        if response.status_code == 204:
            response.headers.pop("Content-Type", None)
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if g.trace:
            response.headers["traceparent"] = g.trace
        if origins:
            response.vary.add("Origin")
        if (origin := request.headers.get("Origin")) in origins:
            response.headers["Access-Control-Allow-Origin"] = origin or ""
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = _asked_headers(request)
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
            response.headers["Access-Control-Max-Age"] = "600"
        # Only what exists: the rest would let a stranger fill the memory with counters.
        path: str = g.get("route", "other")
        method = request.method if request.method in _METHODS else "other"

        def end(started: float = g.started) -> None:
            seconds = time.perf_counter() - started
            answered.add(path=path, method=method, code=str(fields["status"]))
            took.observe(seconds)
            fields["ms"] = round(seconds * 1000, 1)
            log.info("%(method)s %(path)s", fields, extra={"fields": fields})

        response.call_on_close(end)  # the last byte of a stream, not its first
        return response

    def answer(error: Exception) -> Response:
        return as_api_error(error).response(request.path)

    app.register_error_handler(Exception, answer)
    # "//" is simply another path; Flask would redirect it, in HTML.
    app.url_map.merge_slashes = app.url_map.redirect_defaults = False


def _asked_headers(request: Request) -> str:
    """Return what a browser may send: what it asks for, such as the many of OpenAI's client."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    return asked if re.fullmatch(r"[\w\-, ]{1,1000}", asked, re.ASCII) else _ALLOWED_HEADERS


def _ids(request: Request) -> tuple[str, str]:
    """Return a request's id and its W3C traceparent: what it brought, or an id of our own."""
    trace = request.headers.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(trace):
        trace = ""
    given = request.headers.get("X-Request-Id", "")
    if _REQUEST_ID.fullmatch(given):
        return given, trace
    return (trace.split("-")[1] if trace else secrets.token_hex(16)), trace


def _check_key(request: Request, keys: Sequence[bytes]) -> int:
    """Return which of the keys was sent."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    bears = scheme.lower() == "bearer"
    found = (given.strip() if bears else "") or request.headers.get("X-API-Key", "")
    # Every key is compared, in constant time: how long it takes tells nothing.
    right = [hmac.compare_digest(found.encode(errors="replace"), key) for key in keys]
    if any(right):
        return right.index(True)
    if found:
        raise WrongKey("the key that was sent is none of those that are taken here")
    if scheme and not bears:
        raise Unauthorized("a key is needed as Authorization: Bearer KEY, but another scheme came")
    raise Unauthorized("a key is needed, and none was sent: Authorization: Bearer KEY")


def as_api_error(error: Exception) -> ApiError:
    """Turn any exception into an error that may be shown; the unexpected ones are logged."""
    match error:
        case ApiError():
            return error
        case WerkzeugMethodNotAllowed():
            allowed = sorted(error.valid_methods or ())
            return MethodNotAllowed(request.method, _short(request.path), allowed)
        case WerkzeugNotFound():
            where = f"{request.method} {_short(request.path)}"
            return NotFound(f"there is nothing at {where}; every route is in /openapi.json")
        case HTTPException(code=int(code)) if 400 <= code < 500:
            return BadRequest("the request cannot be understood")
    log.error("a request failed: %s", type(error).__name__, exc_info=error)
    return ApiError("the server failed to answer this request")


def json_reply(data: object, status: int = 200) -> Response:
    """Reply with JSON."""
    return Response(msgspec.json.encode(data), status, content_type="application/json")


def _one_at_a_time(function: F) -> F:
    """Let one thread in at a time: JSON takes many times its bytes while it is decoded.

    Nobody is slower for it, as decoding never gives up the interpreter's lock. Nor does the garbage
    collector run meanwhile: it would look through hundreds of thousands of lists again and again,
    in which there is no garbage. What took long is followed by a pause three times as long, so that
    streams keep most of the lock whatever is sent.
    """
    lock = threading.Lock()

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            began = time.perf_counter()
            gc.disable()
            try:
                return function(*args, **kwargs)
            finally:
                gc.enable()
                if (took := time.perf_counter() - began) > LONG_DECODING:
                    time.sleep(3 * took)

    return cast(F, alone)


class Bytes:
    """Bytes of memory that many requests share; one takes some of them, if need be after a wait."""

    def __init__(self, total: int) -> None:
        self.total = self._free = total
        self._changed = threading.Condition()

    def take(self, count: int, seconds: float) -> bool:
        """Take some within `seconds`, but never more than all; tells whether they were had."""
        with self._changed:
            had = self._changed.wait_for(lambda: min(count, self.total) <= self._free, seconds)
            self._free -= min(count, self.total) if had else 0
            return had

    def give(self, count: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._free += min(count, self.total)
            self._changed.notify_all()


def take_body(request: Request, limit: int, large: Bytes) -> None:
    """Read a body of at most `limit` bytes, for whoever asks for it later.

    On every path: functions-framework reads what nobody has read, and knows no limit. What is
    `large` is so until `let_go`.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise BodyTooLarge(
            f"the body has {length} bytes; at most {limit} are taken", limit=limit, given=length
        )
    # A chunked body, whose length nobody announced, is read up to this and then left.
    request.max_content_length = limit + 1
    if not length and "Transfer-Encoding" not in request.headers:
        return
    size = length or limit
    if size > LARGE:
        if not large.take(size, PATIENCE):
            raise TooManyUploads("too many large requests are being sent at once", retry_after=1)
        g.let_go = functools.cache(partial(_give_back, large, size))
    # Bodies that drip must leave threads to others.
    if not _uploads.acquire(timeout=PATIENCE):
        raise TooManyUploads("too many requests are being sent at once", retry_after=1)
    try:
        read = _read(request, limit, length)
    finally:
        _uploads.release()
    if read <= LARGE:
        let_go()


def let_go() -> None:
    """Tell that nothing is held any more of the running request, so that others have room.

    Said at the end of its answer at the latest; sooner where the answer needs nothing of it. JSON
    takes up to thirty times its bytes, fields that nobody looks at included, so a request that
    waits for its turn, or whose reply is written, still counts.
    """
    if give := g.get("let_go"):
        give()


def _give_back(large: "Bytes", size: int) -> None:
    memory.note(size)
    large.give(size)


def _read(request: Request, limit: int, length: int | None) -> int:
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection:
        # One that drips would otherwise hold its thread, and a few of them all threads, for good.
        _reading[connection] = time.monotonic() + BODY_SECONDS
    try:
        read = len(request.get_data())
    except RequestEntityTooLarge:
        read = limit + 1
    except Exception:  # a malformed chunk, a client that left: each server has its own name for it
        raise BodyIncomplete("the body could not be read to its end") from None
    finally:
        if connection:
            _reading.pop(connection, None)
    if read > limit:
        raise BodyTooLarge(f"the body is too large; at most {limit} bytes are taken", limit=limit)
    if length is not None and read < length:
        raise BodyIncomplete(f"the body was announced with {length} bytes, but has {read}")
    return read


def late_bodies(now: float) -> list[socket.socket]:
    """Return the connections whose body should have been there; the server ends their reading."""
    return [connection for connection, until in list(_reading.items()) if now > until]


def compress(request: Request, response: Response) -> None:
    """Compress a long answer for those who ask for it (RFC 9110, section 12.5.3)."""
    if response.status_code != 200 or response.mimetype not in ("application/json", "text/plain"):
        return
    response.vary.add("Accept-Encoding")
    if not response.is_streamed and len(response.get_data()) < COMPRESSED:
        return
    gzip = request.accept_encodings.quality("gzip")
    if not gzip or gzip < request.accept_encodings.quality("identity"):
        return
    response.headers["Content-Encoding"] = "gzip"
    if response.is_streamed:
        written = response.response
        pieces = _gzip(response.iter_encoded())
        response.response = ClosingIterator(pieces, getattr(written, "close", None))
    else:
        response.set_data(b"".join(_gzip([response.get_data()])))


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


@_one_at_a_time
def read_body(
    request: Request,
    type_: type[Body],
    *,
    refuse: Callable[[object], None] = lambda raw: None,
    any_type: bool = False,
    untyped: bool = False,
) -> Body:
    """Check a JSON body and decode it; raises the error that fits.

    `refuse` sees the JSON first, and raises for what is refused by a name of its own. With
    `any_type`, JSON is taken under any media type, and with `untyped` without one, from all but
    pages of other origins, which browsers would let send it unasked.
    """
    kind = request.mimetype
    known = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    free = any_type or (untyped and not kind)
    if not known and not (free and "Origin" not in request.headers):
        given = kind or "nothing"
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {given[:80]}")
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedMediaType(f"a body is taken as it is, without {_short(coding)}")
    data: bytes | memoryview = request.get_data()
    if data[:3] == codecs.BOM_UTF8:
        data = memoryview(data)[3:]
    try:
        raw = _JSON.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"the body is no JSON: {error}") from None
    if isinstance(raw, dict):  # null is not given, also for a field that is not known here
        raw = {name: value for name, value in raw.items() if value is not None}
    refuse(raw)
    try:
        return msgspec.convert(raw, type_, strict=True)
    except msgspec.ValidationError as error:
        refused = error
    if str(refused).startswith(_UNKNOWN):  # which may be null, in an object within
        raw = _without_unknown_nulls(raw, _kinds(type_))
        try:
            return msgspec.convert(raw, type_, strict=True)
        except msgspec.ValidationError as error:
            refused = error
    raise _invalid(str(refused), raw, type_)


def _number(literal: str) -> float:
    """Decode a number that is written with a point or an exponent; 5.0 is the whole number 5."""
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError("Number out of range")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_JSON = msgspec.json.Decoder(float_hook=_number)
_UNKNOWN = "Object contains unknown field"  # as msgspec says it


def _invalid(message: str, raw: object, type_: object) -> InvalidField:
    """Say which field is wrong, what it must be, and what was given."""
    expected, _, path = message.partition(" - at `$")
    param = path.removesuffix("`").removeprefix(".") or None
    for phrase in (_UNKNOWN, "Object missing required field"):
        if expected.startswith(phrase):
            name = expected.split("`")[1]
            param = f"{param}.{name}" if param else name
            lacks = "missing" in phrase
            problem = "is missing" if lacks else "is not known here"
            code = "missing_required_parameter" if lacks else "unknown_parameter"
            said = f"the field {_short(param)} {problem}"
            return InvalidField(said, param=_short(param), code=code)
    if expected.startswith("Expected `null`"):  # a field of OpenAI's that has no meaning here
        name = _short(param or "body")
        said = f"the field {name} is not supported"
        return InvalidField(said, param=name, code="unsupported_parameter")
    if expected.startswith("Invalid enum value"):
        # msgspec's own words echo the text.
        expected = f"Expected {' or '.join(map(repr, _values(type_, path.removesuffix('`'))))}"
    expected = re.sub(r"`([a-z |]+)`", _in_words, expected.partition(", got ")[0])
    where = f"{_short(param)}: " if param else ""
    if param and (place := param.find("[...]")) >= 0:  # some value of a table; which is not told
        return InvalidField(f"{where}{expected}", param=_short(param[:place]))
    given = describe(_at(raw, path.removesuffix("`")))
    return InvalidField(f"{where}{expected}, but got {given}", param=param and _short(param))


def _in_words(types: re.Match[str]) -> str:
    return " or ".join(_TYPES.get(name, name) for name in types[1].split(" | ") if name != "null")


def _at(raw: object, path: str) -> object:
    """Follow a path such as `.messages[0].role` into decoded JSON."""
    for part in _parts(path):
        if part.startswith("[") and isinstance(raw, list):
            index = part[1:-1]
            raw = raw[int(index)] if index.isdecimal() and int(index) < len(raw) else raw
        elif isinstance(raw, dict):
            raw = raw.get(part)
    return raw


def _values(type_: object, path: str) -> list[object]:
    """Follow such a path into a type, and return the values that are taken there."""
    from msgspec import inspect  # only a refusal needs it

    found = _kinds(type_)
    for part in _parts(path):
        found = _items(found) if part.startswith("[") else _fields(found).get(part, [])
    return [
        value for each in found if isinstance(each, inspect.LiteralType) for value in each.values
    ]


def _without_unknown_nulls(value: Any, kinds: "list[inspect.Type]") -> Any:
    """Leave out what is null and not known, wherever an object of known fields stands."""
    if isinstance(value, list) and (inner := _items(kinds)):
        return [_without_unknown_nulls(each, inner) for each in value]
    if isinstance(value, dict) and (fields := _fields(kinds)):
        return {
            name: _without_unknown_nulls(each, fields.get(name, []))
            for name, each in value.items()
            if each is not None or name in fields
        }
    return value


def _kinds(type_: object) -> "list[inspect.Type]":
    """Return the types that a type is one of."""
    from msgspec import inspect

    return list(_plain(inspect.type_info(type_)))


def _plain(type_: "inspect.Type") -> "Iterator[inspect.Type]":
    from msgspec import inspect

    match type_:
        case inspect.UnionType():
            for each in type_.types:
                yield from _plain(each)
        case inspect.Metadata():
            yield from _plain(type_.type)
        case _:
            yield type_


def _items(kinds: "list[inspect.Type]") -> "list[inspect.Type]":
    """Return the types of the items of those that are lists."""
    from msgspec import inspect

    lists = [each for each in kinds if isinstance(each, inspect.ListType)]
    return [type_ for each in lists for type_ in _plain(each.item_type)]


def _fields(kinds: "list[inspect.Type]") -> "dict[str, list[inspect.Type]]":
    """Return the types of the fields of those that are objects of known fields."""
    from msgspec import inspect

    objects = [each for each in kinds if isinstance(each, inspect.StructType)]
    fields = [field for each in objects for field in each.fields]
    return {field.encode_name: list(_plain(field.type)) for field in fields}


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("[", ".[").split(".") if part]


def describe(value: object) -> str:
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


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
        poller.register(connection, select.POLLIN | LEFT)
        happened = poller.poll(0)
        if not happened:
            return False
        if happened[0][1] & LEFT:  # also behind bytes that wait to be read
            return True
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


def observed(metrics: Registry) -> Sequence[tuple[str, str, Handler]]:
    """Return the route /metrics."""

    def scrape(request: Request) -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)

    return [("GET", "/metrics", scrape)]


def probes(
    state: Callable[[], str],
    check: Callable[[], object],
    alive: Callable[[], bool] = lambda: True,
) -> Sequence[tuple[str, str, Handler]]:
    """Return the routes /healthz and /readyz; `check` raises the error of what is not ready.

    A process that is not `alive` any more should be ended and started anew.
    """

    def healthz(request: Request) -> Response:
        if not alive():
            raise ApiError("the engine has ended, or hangs")
        return json_reply({"status": "ok"})

    def readyz(request: Request) -> Response:
        check()
        return json_reply({"status": state()})

    return [("GET", "/healthz", healthz), ("GET", "/readyz", readyz)]
