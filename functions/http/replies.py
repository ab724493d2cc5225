"""Replies of JSON, and the reply to an exception."""

import logging

import msgspec
from flask import Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.exceptions import NotFound as WerkzeugNotFound

from functions.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from functions.http.quoting import shortened

log = logging.getLogger("access")


def json_reply(data: object, status: int = 200) -> Response:
    """Reply with JSON."""
    return Response(msgspec.json.encode(data), status, content_type="application/json")


def as_api_error(error: Exception) -> ApiError:
    """Turn any exception into an error that may be shown; an unexpected one is logged."""
    match error:
        case ApiError():
            return error
        case WerkzeugMethodNotAllowed():
            allowed = sorted(error.valid_methods or ())
            return MethodNotAllowed(request.method, shortened(request.path), allowed)
        case WerkzeugNotFound():
            where = f"{request.method} {shortened(request.path)}"
            return NotFound(f"there is nothing at {where}; every route is in /openapi.json")
        case HTTPException(code=int(code)) if 400 <= code < 500:
            return BadRequest("the request cannot be understood")
    log.error("a request failed: %s", type(error).__name__, exc_info=error)
    return ApiError("the server failed to answer this request")
