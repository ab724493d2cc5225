"""Errors, of every route, layer and status, in the shape of the family of routes that they are of.

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
    """An answer that is an error; the message is one sentence for whoever sent the request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
    # What OpenAI calls it: the type and the code, which is None where OpenAI has none.
    openai_type: ClassVar[str] = "server_error"
    openai_code: str | None = None
    # Whether the request's body is left unread. functions-framework would read it, to the end,
    # before it sends a reply, but for a streamed one.
    unread: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        **details: int,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.details = message, param, details
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def openai_message(self) -> str:
        """Return the sentence that OpenAI's clients are told."""
        return self.message

    def body(self, path: str = "/") -> dict[str, object]:
        """Return the error as it is sent at a path, in a reply or in a stream's last event."""
        return _shape_at(path)(self)[1]

    def response(self, path: str = "/") -> Response:
        """Return the error as a reply of its own to a request for this path."""
        status, said = _shape_at(path)(self)
        data = msgspec.json.encode(said)
        headers = self.headers | {"Content-Length": str(len(data))}
        body = iter((data,)) if self.unread else data
        return Response(body, status, headers, content_type="application/json")


def _native(error: ApiError) -> tuple[int, dict[str, object]]:
    told = {
        "code": error.status,
        "type": error.type,
        "message": error.message,
        "param": error.param,
        **error.details,
    }
    return error.status, {"error": told}


def _openai(error: ApiError) -> tuple[int, dict[str, object]]:
    told = {
        "message": error.openai_message(),
        "type": error.openai_type,
        "param": error.param,
        "code": error.openai_code,
    }
    return 400 if error.status == 422 else error.status, {"error": told}


def _ollama(error: ApiError) -> tuple[int, dict[str, object]]:
    return 400 if error.status == 422 else error.status, {"error": error.message}


# How each family of routes tells of an error, by the first part of their paths.
_Shape = Callable[[ApiError], tuple[int, dict[str, object]]]
_SHAPES: dict[str, _Shape] = {"v1": _openai, "api": _ollama}


def _shape_at(path: str) -> _Shape:
    return _SHAPES.get(path.lstrip("/").partition("/")[0], _native)


class _OfTheRequest(ApiError):
    """The request is at fault."""

    openai_type = "invalid_request_error"


class NotJson(_OfTheRequest):
    """The body is no JSON."""

    status, type = 400, "not_json"


class BadRequest(_OfTheRequest):
    """The request cannot be understood, for another reason."""

    status, type = 400, "bad_request"


class BodyIncomplete(BadRequest):
    """The body ends early, or breaks the rules of its encoding."""

    unread = True


class NotFound(_OfTheRequest):
    """There is nothing at this path."""

    status, type = 404, "not_found"


class ModelNotFound(_OfTheRequest):
    """Another model is asked for than the one that is served."""

    status, type = 404, "model_not_found"
    openai_code = "model_not_found"


class Unauthorized(ApiError):
    """No key."""

    status, type = 401, "unauthorized"
    openai_type = "authentication_error"
    unread = True  # strangers' bodies are not taken

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["WWW-Authenticate"] = "Bearer"


class WrongKey(Unauthorized):
    """A key, but none that is taken."""

    openai_code = "invalid_api_key"


class MethodNotAllowed(_OfTheRequest):
    """The path exists, but not for this method."""

    status, type = 405, "method_not_allowed"
    openai_code = "method_not_supported"

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{method} is not allowed at {path}, only {' and '.join(allowed)}")
        self.headers["Allow"] = ", ".join(sorted({*allowed, "OPTIONS"}))


class BodyTooLarge(_OfTheRequest):
    """The body is larger than the limit; it is refused unread."""

    status, type = 413, "body_too_large"
    unread = True


class TargetTooLong(_OfTheRequest):
    """The request's first line is too long."""

    status, type = 414, "target_too_long"


class ExpectationFailed(_OfTheRequest):
    """Expect asks for something other than 100-continue."""

    status, type = 417, "expectation_failed"


class HeadersTooLarge(_OfTheRequest):
    """The request's headers are too many, or one is too long."""

    status, type = 431, "headers_too_large"


class UnsupportedTransferCoding(_OfTheRequest):
    """The body comes in a coding that is not understood."""

    status, type = 501, "unsupported_transfer_coding"


class UnsupportedVersion(_OfTheRequest):
    """The request is of another HTTP than 1.0 and 1.1."""

    status, type = 505, "unsupported_http_version"


class UnsupportedMediaType(_OfTheRequest):
    """The body is announced as something other than JSON."""

    status, type = 415, "unsupported_media_type"


class InvalidField(_OfTheRequest):
    """A field is missing, unknown, of the wrong type, or out of its range."""

    status, type = 422, "invalid_field"

    def __init__(self, message: str, *, param: str | None, code: str = "invalid_value") -> None:
        """`code` is what OpenAI calls this kind of fault."""
        super().__init__(message, param=param)
        self.openai_code = code


class ContextFull(_OfTheRequest):
    """The prompt leaves no room for a reply."""

    status, type = 422, "context_full"
    openai_code = "context_length_exceeded"

    def openai_message(self) -> str:
        """Begin with the words by which libraries know this error, whatever its code."""
        prompt, context = self.details["prompt_tokens"], self.details["max_context"]
        return (
            f"This model's maximum context length is {context} tokens. However, you requested"
            f" {prompt + 1} tokens ({prompt} in the {self.param}, and at least 1 for the"
            f" completion). Please reduce the length of the {self.param}."
        )


class Overloaded(ApiError):
    """The queue is full."""

    status, type = 429, "overloaded"
    openai_type, openai_code = "rate_limit_error", "rate_limit_exceeded"


class TooManyUploads(Overloaded):
    """More bodies are on their way than there is room for."""

    unread = True


class Loading(ApiError):
    """The model is not ready yet."""

    status, type = 503, "loading"
    openai_code = "model_loading"


class Draining(ApiError):
    """The server is shutting down."""

    status, type = 503, "draining"
    openai_code = "server_shutting_down"


class DeadlineExceeded(ApiError):
    """The request took longer than it may."""

    status, type = 504, "deadline"
    openai_code = "timeout"


class ClientGone(ApiError):
    """The client left; nobody reads this, but the access log shows the customary status."""

    status, type = 499, "client_gone"
