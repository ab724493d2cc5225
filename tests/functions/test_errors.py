"""Errors have the shape of the family of routes: the native one, or OpenAI's."""

import json
import sys
from typing import Any

import pytest
from openai.types import ErrorObject

from functions import errors
from functions.settings import Settings
from tests.functions.conftest import Generate

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
ROUTES = ["/v1/completions", "/v1/chat/completions"]


def body_for(path: str, **fields: object) -> dict[str, Any]:
    return ({"prompt": "Hi"} if path == "/v1/completions" else CHAT) | fields


def check_openais(error: Any, status: int) -> dict[str, Any]:
    """Check an error strictly against the published type, and that its own client reads it."""
    (reported,) = error.values()
    assert set(reported) == {"message", "type", "param", "code"}
    ErrorObject.model_validate(reported, strict=True)
    assert status != 422
    return dict(reported)


def kinds() -> list[type[errors.ApiError]]:
    found, left = [], [errors.ApiError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.append(kind)
    return found


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_both_shapes(kind: type[errors.ApiError]) -> None:
    arguments: dict[type, tuple[Any, ...]] = {errors.MethodNotAllowed: ("PUT", "/", ["GET"])}
    options: dict[type, dict[str, Any]] = {
        errors.InvalidField: {"param": "n"},
        errors.ContextFull: {"param": "prompt", "prompt_tokens": 9, "max_context": 8},
    }
    error = kind(*arguments.get(kind, ("a sentence",)), **options.get(kind, {}))
    for path in ("/", "/chat/", "/healthz", "/v12", "/nothing/v1"):
        (native,) = error.body(path).values()
        assert native["code"] == error.status  # type: ignore[index]
        assert error.response(path).status_code == error.status
    for path in ("/v1", "/v1/chat/completions", "/v1/v1/x"):
        response = error.response(path)
        check_openais(error.body(path), response.status_code)
        assert response.status_code == (400 if error.status == 422 else error.status)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"logit_bias": {"43": 200}}, "logit_bias"),
        ("/v1/completions", {"logit_bias": {"43": "a"}, "prompt": "Hi"}, "logit_bias"),
        ("/v1/responses", {"metadata": {"a": 5}, "input": "Hi"}, "metadata"),
    ],
)
def test_of_a_wrong_value_in_a_table_only_what_is_known_is_told(
    generate: Generate, path: str, fields: dict[str, Any], param: str
) -> None:
    body = fields if "prompt" in fields or "input" in fields else CHAT | fields
    reported = generate.client.post(path, json=body).json["error"]
    assert reported["param"] == param
    assert reported["message"].startswith(f"{param}[...]: Expected a ")
    assert "but got" not in reported["message"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("options", "status", "type_", "code"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400, "invalid_request_error", None),
        ({"json": {}}, 400, "invalid_request_error", "missing_required_parameter"),
        ({"json": {"colour": 1}}, 400, "invalid_request_error", "unknown_parameter"),
        ({"json": {"temperature": 9}}, 400, "invalid_request_error", "invalid_value"),
        ({"json": {"model": "gpt-4"}}, 404, "invalid_request_error", "model_not_found"),
        ({"method": "PUT"}, 405, "invalid_request_error", "method_not_supported"),
        ({"data": b"x" * (2 << 20)}, 413, "invalid_request_error", None),
        ({"data": b"a=b", "content_type": "text/csv"}, 415, "invalid_request_error", None),
    ],
    ids=str,
)
def test_whatever_is_wrong_is_told_as_openai_does(
    generate: Generate, path: str, options: dict[str, Any], status: int, type_: str, code: str
) -> None:
    if options.get("json"):
        options = options | {"json": body_for(path, **options["json"])}
    response = generate.client.open(path, **{"method": "POST"} | options)
    error = check_openais(response.json, response.status_code)
    assert (response.status_code, error["type"], error["code"]) == (status, type_, code)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/embeddings", "/v1/v1/chat/completions"])
def test_a_path_that_does_not_exist_is_told_as_openai_does(generate: Generate, path: str) -> None:
    response = generate.client.post(path, json={})
    error = check_openais(response.json, response.status_code)
    assert response.status_code == 404
    assert path in error["message"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_told_as_openai_does(generate: Generate, path: str, stream: bool) -> None:
    generate.engine.running.clear()
    model = generate.service.get()
    from model.serving.request import GenerationRequest

    for _ in range(4):
        model.scheduler.submit(GenerationRequest((5, 6), 4))
    response = generate.client.post(path, json=body_for(path, stream=stream))
    generate.engine.running.set()
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1
    error = check_openais(response.json, 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


@pytest.mark.parametrize("path", ROUTES)
def test_a_shutdown_is_told_as_openai_does(generate: Generate, path: str) -> None:
    generate.service.close(0)
    response = generate.client.post(path, json=body_for(path))
    assert response.status_code == 503
    assert check_openais(response.json, 503)["code"] == "server_shutting_down"


def fail() -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["engine", "deadline"])
def test_a_failure_is_told_as_openai_does(
    generate: Generate, path: str, stream: bool, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "engine":
        generate.engine.before_step = fail
    else:
        monkeypatch.setattr(sys.modules["main"].openai, "_longest", -1.0)
        assert Settings().deadline > 0
    response = generate.client.post(path, json=body_for(path, stream=stream))
    if stream:
        *_, last = response.get_data(as_text=True).strip().split("\n\n")
        error = check_openais(json.loads(last.removeprefix("data: ")), 500)
    else:
        assert response.status_code == (500 if fault == "engine" else 504)
        error = check_openais(response.json, response.status_code)
    assert (error["type"], error["code"]) == (
        "server_error",
        None if fault == "engine" else "timeout",
    )


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_full_context_is_told_in_the_words_that_libraries_look_for(
    generate: Generate, path: str, stream: bool
) -> None:
    long = "a" * 3000
    body = {"prompt": long} if path == "/v1/completions" else CHAT | {"messages": [
        {"role": "user", "content": long}
    ]}  # fmt: skip
    response = generate.client.post(path, json=body | {"stream": stream})
    error = check_openais(response.json, response.status_code)
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    words = "This model's maximum context length is 2048 tokens. However, you requested "
    assert error["message"].startswith(words)
    assert error["param"] in ("prompt", "messages")
