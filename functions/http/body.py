"""A request's body: JSON, decoded and checked against the type that its route takes."""

import codecs
import functools
import gc
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from flask import Request

from functions.errors import NotJson, UnsupportedMediaType
from functions.http.quoting import shortened

Body = TypeVar("Body")
F = TypeVar("F", bound=Callable[..., Any])

LONG_DECODING = 0.005  # seconds; a usual body of 1 MB takes less


def one_at_a_time(function: F) -> F:
    """Let one thread in at a time: JSON takes many times its bytes while it is decoded.

    No request gets slower by it, because decoding never releases the interpreter's lock. The
    garbage collector is off meanwhile: it would search hundreds of thousands of new lists again and
    again, none of which is garbage. A long decoding is followed by a pause of three times its
    duration, so that running streams get most of the interpreter's lock whatever is sent.
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


@one_at_a_time
def read_body(
    request: Request,
    type_: type[Body],
    *,
    refuse: Callable[[object], None] = lambda raw: None,
    any_type: bool = False,
    untyped: bool = False,
) -> Body:
    """Decode a JSON body as `type_`; raises the `ApiError` that says what is wrong with it.

    `refuse` gets the decoded JSON first, and raises an error of its own for what a route refuses by
    name. With `any_type`, JSON is taken under any media type, and with `untyped` also without one,
    but never from pages of other origins: browsers would let them send it without asking.
    """
    _check_media_type(request, any_type=any_type, untyped=untyped)
    raw = _decode(request.get_data())
    if isinstance(raw, dict):  # a field that is null counts as not given, known or unknown
        raw = {name: value for name, value in raw.items() if value is not None}
    refuse(raw)
    try:
        return msgspec.convert(raw, type_, strict=True)
    except msgspec.ValidationError as error:
        from functions.http import validation  # only a refusal needs it

        # No variable holds an error: its traceback would hold this frame, and so the body, until
        # the garbage collector comes.
        if not validation.is_of_unknown_field(error, raw, type_):
            raise validation.invalid_field(error, raw, type_) from None
    # Within the body's objects, too, an unknown field that is null counts as not given.
    raw = validation.without_unknown_nulls(raw, type_)
    try:
        return msgspec.convert(raw, type_, strict=True)
    except msgspec.ValidationError as error:
        raise validation.invalid_field(error, raw, type_) from None


def _check_media_type(request: Request, *, any_type: bool, untyped: bool) -> None:
    media_type = request.mimetype
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    lenient = any_type or (untyped and not media_type)
    if not is_json and not (lenient and "Origin" not in request.headers):
        given = media_type or "nothing"
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {shortened(given)}")
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedMediaType(f"a body is taken as it is, without {shortened(coding)}")


def _decode(data: bytes) -> object:
    text: bytes | memoryview = data
    if data[:3] == codecs.BOM_UTF8:
        text = memoryview(data)[3:]
    try:
        return _JSON.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error)
    if said == _TRUNCATED and _ends_in_half_a_pair(text):
        said = "JSON is malformed: unexpected end of escaped utf-16 surrogate pair"
    raise NotJson(f"the body is not JSON: {said}")


def _ends_in_half_a_pair(text: bytes | memoryview) -> bool:
    """Whether the decoder missed the second half of a surrogate pair, near the end of a text.

    It says that the text is truncated, where fewer bytes follow than that half would have.
    """
    start, end = bytes(text[:-_PAIR]), bytes(text[-_PAIR:])
    try:
        _JSON.decode(start + _FIRST_HALF.sub(rb"\\ufffd", end))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error) != _TRUNCATED
    return True


def _number(literal: str) -> float:
    """Decode a number that is written with a point or an exponent; 5.0 is the whole number 5."""
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError("Number out of range")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_TRUNCATED = "Input data was truncated"  # says msgspec
_PAIR = 12  # bytes of an escaped surrogate pair
_FIRST_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_JSON = msgspec.json.Decoder(float_hook=_number)
