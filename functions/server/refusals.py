"""Answers to what never reaches the application: bytes that are not HTTP, surplus connections."""

import contextlib
import socket
from http import HTTPStatus

import msgspec
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidHTTPVersion,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import http_date

from functions import errors
from functions.errors import ApiError


def api_error(error: Exception) -> ApiError:
    """Return the error that a failure of gunicorn's parser is answered with."""
    match error:
        case LimitRequestLine():
            return errors.TargetTooLong("the request's first line is too long")
        case LimitRequestHeaders():
            return errors.HeadersTooLarge("the request's headers are too many or too long")
        case ExpectationFailed():
            return errors.ExpectationFailed("of what Expect may ask, only 100-continue is done")
        case UnsupportedTransferCoding():
            return errors.UnsupportedTransferCoding("of Transfer-Encoding, only chunked is done")
        case InvalidHTTPVersion(version=(int(), int())) | InvalidRequestLine(req="PRI * HTTP/2.0"):
            return errors.UnsupportedVersion("the version of HTTP must be 1.0 or 1.1")
        case InvalidHeader(hdr="HOST"):
            return errors.BadRequest("exactly one Host header is needed, with a host and its port")
        case ParseException():
            return errors.BadRequest("the request is not well-formed HTTP")
    return ApiError("the server failed to answer this request")


def send(error: ApiError, client: socket.socket, *, with_body: bool = True) -> None:
    """Send an error to a client, and say that the connection ends with it."""
    body = msgspec.json.encode(error.body())
    headers = error.headers | {
        "Date": http_date(),
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    with contextlib.suppress(OSError):
        client.sendall(head + body if with_body else head)
