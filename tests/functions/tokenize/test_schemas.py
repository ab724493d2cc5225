"""What `tokenize` answers is what its document says."""

from typing import Any

import pytest

from tests.functions.documented import check_answer

ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("POST", "/", {"text": "Hello, 你好"}),
    ("POST", "/", {"text": ""}),
    ("POST", "/", {"text": "a b" * 5000}),  # an answer that is written in blocks
    ("POST", "/detokenize", {"ids": [43, 1183]}),
    ("POST", "/detokenize", {"ids": [43] * 5000}),
]


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=lambda value: str(value)[:40])
def test_an_answer_is_as_described(tokenize: Any, method: str, path: str, body: object) -> None:
    check_answer(tokenize, method, path, body)


def test_every_route_is_tried(tokenize: Any) -> None:
    paths = tokenize.get("/openapi.json").json["paths"]
    described = {(method.upper(), path) for path in paths for method in paths[path]}
    assert described == {(method, path) for method, path, _ in ASKED}
