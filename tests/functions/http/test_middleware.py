"""What every reply has, whatever its path and status; each concern has tests of its own."""

from typing import Any

import pytest

ASKED: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/", {"json": {"text": "Hi"}}, 200),
    ("OPTIONS", "/", {}, 204),
    ("POST", "/", {"data": b"{", "content_type": "application/json"}, 400),
    ("GET", "/nothing", {}, 404),
    ("PUT", "/", {}, 405),
    ("POST", "/", {"data": b"x" * (2 << 20)}, 413),
    ("POST", "/", {"data": b"x", "content_type": "text/csv"}, 415),
    ("POST", "/", {"json": {"text": 1}}, 422),
]


@pytest.mark.parametrize(("method", "path", "options", "status"), ASKED)
def test_every_reply_has_an_id_and_headers_that_keep_browsers_from_guessing(
    tokenize: Any, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    reply = tokenize.open(path, method=method, **options)
    assert reply.status_code == status
    assert reply.headers["X-Request-Id"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"
    assert ("Content-Type" in reply.headers) is (status != 204)
    if status >= 400:
        assert reply.json["error"]["code"] == status
