"""Every error that a request can be answered with, in the shape that its route's clients read.

The native routes have

    {"error": {"code": 422, "type": "invalid_field", "message": "…", "param": "temperature"}}

and those below /v1 what OpenAI's clients read: `code` is a text or null, `type` is one of OpenAI's,
and a wrong field is answered with 400.

    {"error": {"message": "…", "type": "invalid_request_error", "param": "n", "code": null}}

and those below /api what Ollama's read: {"error": "…"}, with 400 for a wrong field too.
"""

from collections.abc import Callable
from typing import ClassVar

import msgspec
from flask import Response


class ApiError(Exception):
    """An answer that is an error; the message is one sentence for the sender of the request.

    A subclass gives what differs from its base class as keywords: its HTTP `status`, the `type` of
    the native routes, the `openai_type` and `openai_code` of OpenAI's, and whether the request's
    body is left `unread`, which functions-framework would otherwise read to its end before it sends
    a reply that is not streamed.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
    openai_type: ClassVar[str] = "server_error"
    openai_code: str | None = None  # None where OpenAI has none
    unread: ClassVar[bool] = False

    def __init_subclass__(cls, **attributes: str | int) -> None:
        super().__init_subclass__()
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        **details: int,
    ) -> None:
        """`param` is the field at fault, `retry_after` seconds until it may go better."""
        super().__init__(message)
        self.message, self.param, self.details = message, param, details
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def openai_message(self) -> str:
        """Return the sentence for OpenAI's clients."""
        return self.message

    def body(self, path: str = "/") -> dict[str, object]:
        """Return the error as it is sent at a path, in a reply or in a stream's last event."""
        return _shape_at(path)(self)[1]

    def response(self, path: str = "/") -> Response:
        """Return the error as a reply of its own to a request for this path."""
        status, fields = _shape_at(path)(self)
        data = msgspec.json.encode(fields)
        headers = self.headers | {"Content-Length": str(len(data))}
        body = iter((data,)) if self.unread else data
        return Response(body, status, headers, content_type="application/json")


_Shape = Callable[[ApiError], tuple[int, dict[str, object]]]  # returns the status and the body


def _native(error: ApiError) -> tuple[int, dict[str, object]]:
    fields = {
        "code": error.status,
        "type": error.type,
        "message": error.message,
        "param": error.param,
        **error.details,
    }
    return error.status, {"error": fields}


def _openai(error: ApiError) -> tuple[int, dict[str, object]]:
    fields = {
        "message": error.openai_message(),
        "type": error.openai_type,
        "param": error.param,
        "code": error.openai_code,
    }
    return 400 if error.status == 422 else error.status, {"error": fields}


def _ollama(error: ApiError) -> tuple[int, dict[str, object]]:
    return 400 if error.status == 422 else error.status, {"error": error.message}


# The shape of each family of routes, by the first part of their paths.
_SHAPES: dict[str, _Shape] = {"v1": _openai, "api": _ollama}


def _shape_at(path: str) -> _Shape:
    return _SHAPES.get(path.lstrip("/").partition("/")[0], _native)


class ClientError(ApiError, openai_type="invalid_request_error"):
    """The request is at fault."""


class NotJson(ClientError, status=400, type="not_json"):
    """The body is not JSON."""


class BadRequest(ClientError, status=400, type="bad_request"):
    """The request cannot be understood, for another reason."""


class BodyIncomplete(BadRequest, unread=True):
    """The body ends early, or breaks the rules of its encoding."""


class Unauthorized(
    ApiError, status=401, type="unauthorized", openai_type="authentication_error", unread=True
):
    """No key."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["WWW-Authenticate"] = "Bearer"


class WrongKey(Unauthorized, openai_code="invalid_api_key"):
    """A key, but none that is accepted."""


class NotFound(ClientError, status=404, type="not_found"):
    """There is nothing at this path."""


class ModelNotFound(ClientError, status=404, type="model_not_found", openai_code="model_not_found"):
    """Another model is asked for than the one that is served."""


class MethodNotAllowed(
    ClientError, status=405, type="method_not_allowed", openai_code="method_not_supported"
):
    """The path exists, but not for this method."""

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{method} is not allowed at {path}, only {' and '.join(allowed)}")
        self.headers["Allow"] = ", ".join(sorted({*allowed, "OPTIONS"}))


class BodyTooLarge(ClientError, status=413, type="body_too_large", unread=True):
    """The body is larger than the limit."""


class TargetTooLong(ClientError, status=414, type="target_too_long"):
    """The request's first line is too long."""


class UnsupportedMediaType(ClientError, status=415, type="unsupported_media_type"):
    """The body is announced as something other than JSON."""


class ExpectationFailed(ClientError, status=417, type="expectation_failed"):
    """Expect asks for something other than 100-continue."""


class InvalidField(ClientError, status=422, type="invalid_field"):
    """A field is missing, unknown, of the wrong type, or out of its range."""

    def __init__(self, message: str, *, param: str | None, code: str = "invalid_value") -> None:
        """`code` is what OpenAI calls this kind of fault."""
        super().__init__(message, param=param)
        self.openai_code = code


class ContextFull(
    ClientError, status=422, type="context_full", openai_code="context_length_exceeded"
):
    """The prompt leaves no room for a reply; details: `prompt_tokens` and `max_context`."""

    def openai_message(self) -> str:
        """Begin with the words by which libraries recognize this error, whatever its code."""
        prompt, context = self.details["prompt_tokens"], self.details["max_context"]
        return (
            f"This model's maximum context length is {context} tokens. However, you requested"
            f" {prompt + 1} tokens ({prompt} in the {self.param}, and at least 1 for the"
            f" completion). Please reduce the length of the {self.param}."
        )


class Overloaded(
    ApiError,
    status=429,
    type="overloaded",
    openai_type="rate_limit_error",
    openai_code="rate_limit_exceeded",
):
    """There is no room for this request now."""


class TooManyUploads(Overloaded, unread=True):
    """More bodies are arriving than there is room for."""


class HeadersTooLarge(ClientError, status=431, type="headers_too_large"):
    """The request's headers are too many, or one is too long."""


class ClientGone(ApiError, status=499, type="client_gone"):
    """The client left. It does not read this, but the access log shows the customary status."""


class UnsupportedTransferCoding(ClientError, status=501, type="unsupported_transfer_coding"):
    """The body comes in a coding that is not understood."""


class Loading(ApiError, status=503, type="loading", openai_code="model_loading"):
    """The model is not ready yet."""


class Draining(ApiError, status=503, type="draining", openai_code="server_shutting_down"):
    """The server is shutting down."""


class DeadlineExceeded(ApiError, status=504, type="deadline", openai_code="timeout"):
    """The request took longer than it may."""


class UnsupportedVersion(ClientError, status=505, type="unsupported_http_version"):
    """The request is of an HTTP version other than 1.0 and 1.1."""
