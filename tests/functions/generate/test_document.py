"""The document of `generate`: what each route answers, whole and streamed, is what it says."""

import json
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.functions.conftest import Generate
from tests.functions.documented import check_answer, content_of, errors

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("POST", "/", {"prompt": "Hi"}),
    ("POST", "/", CHAT),
    ("POST", "/chat/", {"content": "Hi"}),
    ("POST", "/warm", {"prompt": "Hi"}),
    ("POST", "/warm", None),
    ("POST", "/v1/completions", {"prompt": "Hi"}),
    ("POST", "/v1/completions", {"prompt": ["Hi"], "logprobs": 2, "echo": True}),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2, "n": 2}),
    ("POST", "/v1/responses", {"input": "Hi"}),
    ("POST", "/v1/responses", {"input": "Hi", "max_output_tokens": 3} | LOGPROBS),
    ("POST", "/v1/responses", {"input": "Hi", "tools": [{"type": "x"}], "metadata": {"a": "b"}}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/{name}", None),
    ("POST", "/api/chat", CHAT | {"stream": False}),
    ("POST", "/api/chat", {"stream": False}),
    ("POST", "/api/generate", {"prompt": "Hi", "stream": False, "logprobs": True}),
    ("POST", "/api/show", {}),
    ("GET", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("GET", "/api/version", None),
]
NEVER_KEPT = {(method, "/v1/responses/{name}") for method in ("GET", "DELETE", "POST")}
EVENTS, LINES = "text/event-stream", "application/x-ndjson"
USAGE = {"stream_options": {"include_usage": True}}
# Streams, and which of the alternatives that are described do not come in them.
STREAMED: list[tuple[str, str, list[dict[str, Any]], set[str]]] = [
    ("/", EVENTS, [{"prompt": "Hi"}, CHAT], {"LoadingStatus"}),
    ("/v1/completions", EVENTS, [{"prompt": "Hi", "logprobs": 2, "echo": True} | USAGE], set()),
    ("/v1/chat/completions", EVENTS, [CHAT | {"logprobs": True, "n": 2} | USAGE], set()),
    ("/v1/responses", EVENTS, [{"input": "Hi"} | LOGPROBS], {"ResponseIncomplete"}),
    ("/v1/responses", EVENTS, [{"input": "Hi", "max_output_tokens": 3}], {"ResponseCompleted"}),
    ("/api/chat", LINES, [CHAT | {"logprobs": True, "top_logprobs": 2}], set()),
    ("/api/generate", LINES, [{"prompt": "Hi"}, {"prompt": "Hi", "raw": True}], set()),
]
# What the data of the native events is, by their names.
NAMED = {
    "status": {"LoadingStatus", "QueuedStatus", "PrefillStatus", "GeneratingStatus"},
    "token": {"TokenEvent"},
    "done": {"Generated"},
    "error": {"NativeError"},
}


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=str)
def test_an_answer_is_as_described(
    generate: Generate, method: str, path: str, body: object
) -> None:
    check_answer(generate.client, method, path, body)


def test_every_route_is_described_and_tried(generate: Generate) -> None:
    paths = generate.client.get("/openapi.json").json["paths"]
    described = {(method.upper(), path) for path in paths for method in paths[path]}
    assert described == {(method, path) for method, path, _ in ASKED} | NEVER_KEPT
    table = {
        (method, path.replace("<name>", "{name}").replace("<path:name>", "{name}"))
        for method, path, _ in sys.modules["main"].routes.table
    }
    assert described == table
    streamed = {
        (path, media)
        for path, methods in paths.items()
        for operation in methods.values()
        for media in operation["responses"].get("200", {}).get("content", {})
        if media in (EVENTS, LINES)
    }
    assert streamed == {(path, media) for path, media, *_ in STREAMED}


def name_of(alternative: dict[str, Any]) -> str:
    reference: str = alternative.get("$ref") or alternative["const"]
    return reference.rpartition("/")[2]


def streamed(response: Any) -> list[tuple[str, Any]]:
    """The name and the JSON of each event, or of each line."""
    if response.mimetype == LINES:
        return [("", json.loads(line)) for line in response.data.splitlines()]
    found = []
    for block in response.text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, _, data = block.removeprefix("event: ").rpartition("\ndata: ")
        data = data.removeprefix("data: ")
        found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


def matches(document: Any, alternatives: list[dict[str, Any]], value: object) -> list[str]:
    """The names of the alternatives that a value is described by."""
    return [name_of(each) for each in alternatives if not errors(document, each, value)]


@pytest.mark.parametrize(("path", "media", "bodies", "unseen"), STREAMED, ids=str)
def test_every_event_of_a_stream_is_as_described(
    generate: Generate, path: str, media: str, bodies: list[dict[str, Any]], unseen: set[str]
) -> None:
    document = generate.client.get("/openapi.json").json
    alternatives = content_of(document, "POST", path)[media]["schema"]["anyOf"]
    steps_left = sys.maxsize

    def step() -> None:
        nonlocal steps_left
        steps_left -= 1
        if steps_left < 0:
            raise RuntimeError("broken")

    generate.engine.before_step = step
    seen: set[str] = set()
    # The last is streamed once more, by an engine that fails at its third step.
    for body, steps in [*((body, sys.maxsize) for body in bodies), (bodies[-1], 2)]:
        steps_left = steps
        response = generate.client.post(path, json=body | {"stream": True})
        assert (response.status_code, response.mimetype) == (200, media)
        for name, value in streamed(response):
            (found,) = matches(document, alternatives, value)
            assert found in NAMED.get(name, {found})
            seen.add(found)
    assert {name_of(each) for each in alternatives} - seen == unseen


def test_a_stream_that_waits_for_the_model_is_as_described(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = generate.service.get()
    document = generate.client.get("/openapi.json").json
    alternatives = content_of(document, "POST", "/")[EVENTS]["schema"]["anyOf"]
    monkeypatch.setattr(generate.service, "_resource", None)
    response = generate.post({"prompt": "Hi", "stream": True}, buffered=False)
    monkeypatch.setattr(generate.service, "_resource", model)
    events = streamed(response)
    found = [matches(document, alternatives, value) for _, value in events]
    assert found[0] == ["LoadingStatus"]
    assert found[-1] == ["Generated"]
    assert all(len(each) == 1 for each in found)


WRONG: list[dict[str, Any]] = [
    {"json": {"colour": 1}},
    {"json": []},
    {"data": b"{", "content_type": "application/json"},
    {"data": b"{}", "content_type": "text/csv", "headers": {"Origin": "http://elsewhere"}},
    {"data": b"x" * (2 << 20)},
]


@pytest.mark.parametrize("path", sorted({path for method, path, _ in ASKED if method == "POST"}))
@pytest.mark.parametrize("asked", WRONG, ids=lambda asked: str(asked)[:40])
def test_an_error_is_as_described(generate: Generate, path: str, asked: dict[str, Any]) -> None:
    document = generate.client.get("/openapi.json").json
    response = generate.client.post(path, **asked)
    assert 400 <= response.status_code < 500
    schema = content_of(document, "POST", path, response.status_code)["application/json"]["schema"]
    whole = schema | {"components": document["components"]}
    assert Draft202012Validator(whole).is_valid(response.json)
