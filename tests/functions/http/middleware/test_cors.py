"""Which pages of other origins may call, and what they may read."""

import pytest

from tests.functions.clients import post_text, tokenize_client


def test_only_pages_of_known_origins_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    client = tokenize_client(monkeypatch, CORS_ORIGINS="https://chat.example", API_KEYS="a-key")
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    allowed = client.options("/", headers=asked)
    assert allowed.status_code == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://chat.example"
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    other = post_text(client, Origin="https://evil.example", Authorization="Bearer a-key")
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers["Vary"]


def test_a_pages_own_headers_are_allowed_and_ours_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = tokenize_client(monkeypatch, CORS_ORIGINS="https://chat.example")
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "content-type, x-stainless-lang"
    allowed = client.options("/", headers=asked).headers
    assert allowed["Access-Control-Allow-Headers"] == "content-type, x-stainless-lang"
    assert "Retry-After" in allowed["Access-Control-Expose-Headers"]
