"""Routes: what answers a path, and what is said where nothing does."""

from typing import Any

import pytest

from tests.functions.conftest import Generate
from tests.functions.servers import Start, wait_until

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def test_a_tokenize_server_says_nothing_of_v1(tokenize: Any) -> None:
    error = tokenize.post("/v1/chat/completions", json={}).json["error"]
    assert error["message"].endswith("every route is in /openapi.json")
    assert "base URL" not in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/completions", "/v1/completions"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/base/v1/models", "/v1/models"),
        ("POST", "/V1/Chat/Completions", "/v1/chat/completions"),
        ("POST", "/v1/embeddings", None),
        ("POST", "/v1/audio/speech", None),
        ("GET", "/nothing", None),
    ],
)
def test_a_path_that_does_not_exist_is_named_and_what_may_be_meant(
    generate: Generate, method: str, path: str, meant: str | None
) -> None:
    response = generate.client.open(path, method=method)
    error = response.json["error"]
    assert response.status_code == 404
    assert f"{method} {path}" in error["message"]
    assert "/v1" in error["message"]
    assert "/openapi.json" in error["message"]
    assert (f"is {meant} meant?" in error["message"]) == (meant is not None)


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/completions/", "/v1/models/"])
def test_a_slash_at_the_end_changes_nothing(generate: Generate, path: str) -> None:
    allowed = generate.client.options(path).headers["Allow"]
    response = (
        generate.client.get(path)
        if "GET" in allowed
        else generate.client.post(
            path, json={"prompt": "Hi"} if path == "/v1/completions/" else CHAT
        )
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/", "/chat/", "/healthz"])
def test_another_method_is_told_with_the_path(generate: Generate, path: str) -> None:
    for method in ("PUT", "TRACE", "PATCH"):
        response = generate.client.open(path, method=method)
        assert response.status_code == 405
        assert f"{method} is not allowed at {path}, only" in response.json["error"]["message"]


def test_doubled_slashes_are_no_html_redirect(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    connection = server.connect()
    connection.request("GET", "//")
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
