"""The one shape of an error, for every route, layer and status.

{"error": {"code": 422, "type": "invalid_field", "message": "…", "param": "temperature"}}
"""

from typing import ClassVar

import msgspec
from flask import Response


class ApiError(Exception):
    """An answer that is an error; the message is one sentence for whoever sent the request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
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

    def body(self) -> dict[str, object]:
        """Return the error as it is sent, in a reply or in a stream's last event."""
        error = {
            "code": self.status,
            "type": self.type,
            "message": self.message,
            "param": self.param,
            **self.details,
        }
        return {"error": error}

    def response(self) -> Response:
        """Return the error as a reply of its own."""
        data = msgspec.json.encode(self.body())
        body = iter((data,)) if self.unread else data
        return Response(body, self.status, self.headers, content_type="application/json")


class NotJson(ApiError):
    """The body is no JSON."""

    status, type = 400, "not_json"


class BadRequest(ApiError):
    """The request cannot be understood, for another reason."""

    status, type = 400, "bad_request"


class BodyIncomplete(BadRequest):
    """The body ends early, or breaks the rules of its encoding."""

    unread = True


class NotFound(ApiError):
    """There is nothing at this path."""

    status, type = 404, "not_found"


class ModelNotFound(ApiError):
    """Another model is asked for than the one that is served."""

    status, type = 404, "model_not_found"


class Unauthorized(ApiError):
    """No key, or a wrong one."""

    status, type = 401, "unauthorized"
    unread = True  # strangers' bodies are not taken

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["WWW-Authenticate"] = "Bearer"


class MethodNotAllowed(ApiError):
    """The path exists, but not for this method."""

    status, type = 405, "method_not_allowed"

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(f"{method} is not allowed here, only {' and '.join(allowed)}")
        self.headers["Allow"] = ", ".join(allowed)


class BodyTooLarge(ApiError):
    """The body is larger than the limit; it is refused unread."""

    status, type = 413, "body_too_large"
    unread = True


class UnsupportedMediaType(ApiError):
    """The body is announced as something other than JSON."""

    status, type = 415, "unsupported_media_type"


class InvalidField(ApiError):
    """A field is missing, unknown, of the wrong type, or out of its range."""

    status, type = 422, "invalid_field"


class ContextFull(ApiError):
    """The prompt leaves no room for a reply."""

    status, type = 422, "context_full"


class Overloaded(ApiError):
    """The queue is full."""

    status, type = 429, "overloaded"


class TooManyUploads(Overloaded):
    """More bodies are on their way than there is room for."""

    unread = True


class Loading(ApiError):
    """The model is not ready yet."""

    status, type = 503, "loading"


class Draining(ApiError):
    """The server is shutting down."""

    status, type = 503, "draining"


class DeadlineExceeded(ApiError):
    """The request took longer than it may."""

    status, type = 504, "deadline"


class ClientGone(ApiError):
    """The client left; nobody reads this, but the access log shows the customary status."""

    status, type = 499, "client_gone"
