"""What may differ in a body, and how it is announced, and still mean the same."""

import gc
import json
import threading
from typing import Any

import msgspec
import pytest
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from pydantic import v1 as pydantic

from functions.generate.ollama.schemas import OllamaMessage, OllamaOptions
from functions.generate.openai.schemas import ChatMessage, ContentPart, StreamOptions
from functions.generate.responses.schemas import InputMessage
from functions.http.body import one_at_a_time
from model.text.chat import ChatTemplate
from tests.fakes import byte_tokenizer
from tests.functions.clients import post_text
from tests.functions.conftest import Generate

pytestmark = pytest.mark.slow

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
ROUTES: dict[str, dict[str, Any]] = {
    "/": {"prompt": "Hi", "max_new_tokens": 2},
    "/warm": {"prompt": "Hi"},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"input": "Hi", "max_output_tokens": 16},
}


def schema(client: Any, route: str) -> dict[str, Any]:
    """The JSON schema that the document gives for a route's body."""
    document = client.get("/openapi.json").json
    body = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]
    found = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    return dict(found)


@pytest.mark.parametrize("route", ROUTES)
def test_null_for_an_optional_field_is_not_given(generate: Generate, route: str) -> None:
    known = schema(generate.client, route)
    optional = set(known["properties"]) - set(known.get("required", ())) - set(ROUTES[route])
    assert optional
    for name in sorted(optional):
        response = generate.client.post(route, json=ROUTES[route] | {name: None})
        assert response.status_code == 200, (name, response.text)
    every = dict.fromkeys(optional)
    assert generate.client.post(route, json=ROUTES[route] | every).status_code == 200


WITHIN: list[tuple[Any, dict[str, Any]]] = [
    (ChatMessage, {"role": "assistant"}),
    (ContentPart, {"type": "text", "text": "a"}),
    (StreamOptions, {}),
    (InputMessage, {"role": "user", "content": "a"}),
    (OllamaMessage, {"role": "user", "content": "a"}),
    (OllamaOptions, {}),
]


@pytest.mark.parametrize(("type_", "needed"), WITHIN)
def test_null_within_an_object_is_not_given_either(type_: Any, needed: dict[str, Any]) -> None:
    for field in msgspec.structs.fields(type_):
        if not field.required:
            msgspec.convert(needed | {field.encode_name: None}, type_)


NULL = {"field_of_another_server": None}
UNKNOWN: list[tuple[str, dict[str, Any]]] = [
    ("/", {"messages": [{"role": "user", "content": "Hi"} | NULL]}),
    ("/warm", {"messages": [{"role": "user", "content": "Hi"} | NULL]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"} | NULL]}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"} | NULL]}]},
    ),
    ("/v1/chat/completions", CHAT | {"stream": True, "stream_options": NULL}),
    ("/v1/completions", {"prompt": "Hi", "stream": True, "stream_options": NULL}),
    ("/v1/responses", {"input": [{"role": "user", "content": "Hi"} | NULL]}),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"} | NULL]}]},
    ),
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"} | NULL]}),
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "options": NULL}),
    ("/api/generate", {"prompt": "Hi", "options": NULL}),
]


@pytest.mark.parametrize(("route", "body"), UNKNOWN)
def test_null_for_a_field_that_is_not_known_is_not_given_wherever_it_stands(
    generate: Generate, route: str, body: dict[str, Any]
) -> None:
    assert generate.client.post(route, json=body).status_code == 200
    known = json.dumps(body).replace("null", "1")
    refused = generate.client.post(route, data=known, content_type="application/json")
    assert refused.status_code in (400, 422)
    assert "field_of_another_server is not known here" in refused.text


def test_null_stays_in_what_a_template_is_shown(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"function": {"name": "f", "arguments": {"unit": None}}}
    said = {"role": "assistant", "tool_calls": [call], "odd": None}
    shown: list[Any] = []

    def render(template: ChatTemplate, messages: Any) -> str:
        shown.extend(messages)
        return "Hi"

    monkeypatch.setattr(ChatTemplate, "render", render)
    body = {"messages": [said, {"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert generate.client.post("/v1/chat/completions", json=body).status_code == 200
    assert shown[0]["tool_calls"] == [call]


def numbers(known: dict[str, Any]) -> list[str]:
    """The fields that take whole numbers."""
    return [
        name
        for name, field in known["properties"].items()
        if any(each.get("type") == "integer" for each in field.get("anyOf", [field]))
    ]


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "/warm"])
def test_a_whole_number_may_be_written_with_a_point(generate: Generate, route: str) -> None:
    names = numbers(schema(generate.client, route))
    assert "seed" in names
    for name in names:
        if name == "top_logprobs":  # it needs another
            continue
        asked = {key: value for key, value in ROUTES[route].items() if "tokens" not in key}
        whole = b"16" if "tokens" in name else b"1"
        for written in (whole, whole + b".0", whole + b".0e0", whole + b"0E-1"):
            body = json.dumps(asked | {name: "?"}).encode().replace(b'"?"', written)
            response = generate.client.post(route, data=body, content_type="application/json")
            assert response.status_code == 200, (name, written, response.text)
        for written in (b"1.5", b"1e30", b'"1"', b"true", b"[]"):
            body = json.dumps(asked | {name: "?"}).encode().replace(b'"?"', written)
            response = generate.client.post(route, data=body, content_type="application/json")
            if name == "logprobs" and written == b"true":
                continue
            assert response.status_code in (400, 422), (name, written)


@pytest.mark.parametrize("route", ROUTES)
def test_a_byte_order_mark_is_passed_over(generate: Generate, route: str) -> None:
    body = json.dumps(ROUTES[route], ensure_ascii=False).encode("utf-8-sig")
    response = generate.client.post(route, data=body, content_type="application/json")
    assert response.status_code == 200
    for wrong in (
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf" * 2 + b"{}",
        b"{}\xef\xbb\xbf",
        json.dumps(ROUTES[route]).encode("utf-16"),
    ):
        response = generate.client.post(route, data=wrong, content_type="application/json")
        assert response.status_code == 400


TYPES = [
    ("application/json", True),
    ("application/json; charset=utf-8", True),
    ("application/json;charset=UTF-8", True),
    ("APPLICATION/JSON", True),
    ("application/vnd.api+json", True),
    ("application/problem+json; charset=utf-8", True),
    ("text/json", False),
    ("text/plain", False),
    ("application/x-www-form-urlencoded", False),
    ("multipart/form-data; boundary=a", False),
    ("application/jsonl", False),
    ("json", False),
    ("", False),
    (None, False),
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("type_", "taken"), TYPES)
def test_json_is_announced_as_json(
    generate: Generate, route: str, type_: str | None, taken: bool
) -> None:
    body = json.dumps(ROUTES[route]).encode()
    response = generate.client.post(route, data=body, content_type=type_)
    assert response.status_code == (200 if taken else 415)


# What the older stack was made of: FastAPI, as it was before it asked for a Content-Type, and the
# pydantic of its time.
class DataIn(pydantic.BaseModel):
    content: str


def theirs(body: bytes, type_: str | None) -> str | None:
    """The prompt that the older stack made of a request; None where it answered with an error."""
    app = FastAPI(strict_content_type=False)
    found: list[str] = []

    @app.post("/chat/")
    async def chat(data: Any = Body()) -> None:  # noqa: B008
        found.append(DataIn.parse_obj(data).content)

    client = TestClient(app, raise_server_exceptions=False)
    headers = {} if type_ is None else {"Content-Type": type_}
    client.post("/chat/", content=body, headers=headers)
    return (found or [""])[0] or None  # the older stack refused an empty prompt


OLD_BODIES: list[tuple[bytes, str | None]] = [
    (b'{"content": "Hi"}', type_) for type_, _ in TYPES if type_ != "json"
] + [
    (body, "application/json")
    for body in (
        b'{"content": 5}',
        b'{"content": 5.5}',
        b'{"content": -7}',
        b'{"content": true}',
        b'{"content": false}',
        b'{"content": "   "}',
        b'{"content": "\\n"}',
        b'{"content": ""}',
        b'{"content": null}',
        b'{"content": []}',
        b'{"content": ["Hi"]}',
        b'{"content": {}}',
        b'{"content": "Hi", "other": 1}',
        b'{"content": "Hi", "content": "Ho"}',
        b'{"Content": "Hi"}',
        b"{}",
        b"[]",
        b'"Hi"',
        b"null",
        b"5",
        b"",
        b"{",
        b'\xef\xbb\xbf{"content": "Hi"}',
        '{"content": "你好 é"}'.encode(),
        b'{"content": "\\u4f60"}',
    )
]


@pytest.mark.parametrize(("body", "type_"), OLD_BODIES, ids=str)
def test_the_older_stacks_route_takes_what_it_took(
    generate: Generate, body: bytes, type_: str | None
) -> None:
    response = generate.client.post("/chat/", data=body, content_type=type_)
    expected = theirs(body, type_)
    if expected is None:
        assert response.status_code in (400, 415, 422)
        assert response.json["error"]["message"]
        return
    assert response.status_code == 200, response.text
    assert response.json == {"data": "Hello, 你好!"}
    _, tokens = generate.engine.steps[0][0]
    assert byte_tokenizer().decode(tokens) == f"User: {expected}\nAssistant:"


def test_a_page_of_another_origin_announces_its_json(generate: Generate) -> None:
    """A browser asks nobody before it sends a body without a type."""
    headers = {"Origin": "https://evil.example"}
    response = generate.client.post("/chat/", data=b'{"content": "Hi"}', headers=headers)
    assert response.status_code == 415


@pytest.mark.parametrize("role", ["system", "assistant"])
@pytest.mark.parametrize("content", ["", None])
def test_an_empty_turn_is_taken_back(generate: Generate, role: str, content: object) -> None:
    """Such as a reply of our own that was empty."""
    user = {"role": "user", "content": "Hi"}
    messages = [user, {"role": role, "content": content}, user]
    for route in ("/", "/warm", "/v1/chat/completions"):
        assert generate.client.post(route, json={"messages": messages}).status_code == 200


def test_one_decodes_at_a_time_and_no_garbage_is_looked_for() -> None:
    inside, most = 0, 0

    @one_at_a_time
    def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        assert not gc.isenabled()
        inside -= 1
        raise LookupError

    def call() -> None:
        for _ in range(50):
            with pytest.raises(LookupError):
                work()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert gc.isenabled()


def test_a_compressed_body_is_refused(tokenize: Any) -> None:
    assert post_text(tokenize, **{"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"my secret", "JSON is malformed: invalid character (byte 0)"),
        (b'{"a": 1,}', "JSON is malformed: trailing comma in object (byte 8)"),
        (b'{"a": 1} x', "JSON is malformed: trailing characters (byte 10)"),
        (b"{'a': 1}", "JSON is malformed: object keys must be strings (byte 1)"),
        (b'{"a": 1e999}', "Number out of range"),
    ],
)
def test_what_is_no_json_is_said_in_msgspecs_words(tokenize: Any, body: bytes, said: str) -> None:
    """They are part of the API: an upgrade of msgspec that changes them is noticed here."""
    reply = tokenize.post("/", data=body, content_type="application/json")
    assert reply.status_code == 400
    assert reply.json["error"]["message"].startswith(f"the body is not JSON: {said}")


@pytest.mark.parametrize("half", ["\\ud800", "\\uDBFF", "\\ud83d"])
@pytest.mark.parametrize("after", ["", "x", "\\n", "four", "fives", "sixsix", "a long rest"])
@pytest.mark.parametrize("end", ['"}', '" }', '"}\n'])
def test_half_a_pair_of_surrogates_is_named_wherever_it_stands(
    tokenize: Any, half: str, after: str, end: str
) -> None:
    body = '{"text": "' + half + after + end
    with pytest.raises(UnicodeEncodeError):
        json.loads(body)["text"].encode()
    reply = tokenize.post("/", data=body.encode(), content_type="application/json")
    assert reply.status_code == 400
    said = reply.json["error"]["message"]
    assert "surrogate pair" in said
    assert "truncated" not in said


@pytest.mark.parametrize("end", ["\\ud800", "\\ud83d\\ude", '\\ud800"'])
def test_what_is_truncated_behind_half_a_pair_is_said_to_be_truncated(
    tokenize: Any, end: str
) -> None:
    body = f'{{"text": "{end}'
    reply = tokenize.post("/", data=body.encode(), content_type="application/json")
    assert "Input data was truncated" in reply.json["error"]["message"]


REFUSED: dict[str, dict[str, Any]] = {
    "an unknown field": {"prompt": "Hi", "kept": ["a-marker"]},
    "a null beside an unknown field": {"prompt": "Hi", "stop": ["a-marker"], "x": {"y": None}},
    "another type": {"prompt": ["a-marker"]},
    "a missing field": {"stop": ["a-marker"]},
    "a wrong bound": {"prompt": "Hi", "stop": ["a-marker"], "max_new_tokens": -5},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_body_is_let_go_without_the_garbage_collector(
    generate: Generate, case: str
) -> None:
    """An error that a variable holds, holds its frame, and so the body: for one of 1 MB, 25 MB."""
    gc.collect()
    gc.disable()
    try:
        assert generate.client.post("/", json=REFUSED[case]).status_code == 422
        left = [each for each in gc.get_objects() if type(each) is list and each == ["a-marker"]]
    finally:
        gc.enable()
    own = [value for body in REFUSED.values() for value in body.values()]
    assert [each for each in left if not any(each is value for value in own)] == []
