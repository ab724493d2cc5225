"""API keys: which requests are answered, and what refusals say."""

import socket
from pathlib import Path

import pytest

from tests.functions.clients import post_text, tokenize_client
from tests.functions.servers import Start, wait_until

SECRET = "a-secret-key"


def test_without_a_key_nothing_is_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("from-a-file\n\n")
    client = tokenize_client(monkeypatch, API_KEYS=f"{SECRET}, other", API_KEYS_FILE=str(file))
    for headers, said in (
        ({}, "none was sent"),
        ({"Authorization": ""}, "none was sent"),
        ({"Authorization": "Bearer"}, "none was sent"),
        ({"Authorization": "Bearer "}, "none was sent"),
        ({"Authorization": "bearer wrong"}, "not accepted"),
        ({"Authorization": "Bearer", "X-API-Key": "wrong"}, "not accepted"),
        ({"Authorization": "Bearer wrong"}, "not accepted"),
        ({"X-API-Key": "wrong"}, "not accepted"),
        ({"Authorization": SECRET}, "another scheme"),
    ):
        refused = post_text(client, **headers)
        assert refused.status_code == 401
        assert refused.json["error"]["type"] == "unauthorized"
        assert said in refused.json["error"]["message"]
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        v1 = client.post("/v1/chat/completions", json={}, headers=headers).json["error"]
        wrong = said == "not accepted"
        assert (v1["type"], v1["code"]) == (
            "authentication_error",
            "invalid_api_key" if wrong else None,
        )
    for key in (SECRET, "other", "from-a-file"):
        assert post_text(client, Authorization=f"Bearer {key}").status_code == 200
    assert post_text(client, **{"X-API-Key": SECRET}).status_code == 200
    assert post_text(client, **{"Authorization": "Bearer", "X-API-Key": SECRET}).status_code == 200
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/").status_code == 401


def test_metrics_can_want_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = tokenize_client(monkeypatch, API_KEYS=SECRET, OPEN_METRICS="0")
    assert client.get("/metrics").status_code == 401


def test_a_body_without_a_key_is_not_taken(start: Start) -> None:
    server = start(PIBLOOM_API_KEYS="a-key")
    wait_until(server.is_ready)
    client = socket.create_connection(("127.0.0.1", server.port), 20)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(head + b"Content-Length: 1000000000\r\n\r\n{")
    assert client.recv(65536).startswith(b"HTTP/1.1 401 ")  # though nothing more comes
    client.close()
