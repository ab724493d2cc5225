"""Cross-origin requests (CORS): which pages' scripts may call, and what they may read."""

import re
from collections.abc import Collection

from flask import Request, Response

_REQUEST_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-Request-Id, X-Request-Timeout, traceparent"
)
_RESPONSE_HEADERS = "Retry-After, X-Request-Id, traceparent"
_HEADER_NAMES = r"[A-Za-z0-9_\-, ]{1,1000}"  # compiled when it is first needed


class Cors:
    """Allows calls from pages of some origins."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = origins

    def is_preflight(self, request: Request) -> bool:
        """Whether a browser asks if a page of an allowed origin may send a request."""
        return request.method == "OPTIONS" and request.headers.get("Origin") in self._origins

    def add_headers(self, request: Request, response: Response) -> None:
        """Tell a browser what a page of an allowed origin may send and read."""
        if self._origins:
            response.vary.add("Origin")
        if (origin := request.headers.get("Origin")) in self._origins:
            response.headers["Access-Control-Allow-Origin"] = origin or ""
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = _allowed_headers(request)
            response.headers["Access-Control-Expose-Headers"] = _RESPONSE_HEADERS
            response.headers["Access-Control-Max-Age"] = "600"


def _allowed_headers(request: Request) -> str:
    """Return the headers that the browser asks for, such as the many of OpenAI's client."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    return asked if re.fullmatch(_HEADER_NAMES, asked) else _REQUEST_HEADERS
