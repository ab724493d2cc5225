"""The document: it is well-formed, and what the routes answer is what it says."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.functions.conftest import Generate

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
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
# What comes back of the request's own fields, which is not described once more.
ECHOED = {"/v1/responses"}


def closed(schema: Any) -> Any:
    """The same schema, in which nothing is let pass that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if isinstance(found.get("properties"), dict) and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found


def check_answer(client: Any, method: str, path: str, body: Any) -> None:
    document = client.get("/openapi.json").json
    operation = document["paths"][path][method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    whole = schema | {"components": document["components"]}
    response = client.open(path.replace("{name}", "fake"), method=method, json=body)
    assert response.status_code == 200, response.text
    validator = Draft202012Validator(whole if path in ECHOED else closed(whole))
    assert not [error.message for error in validator.iter_errors(json.loads(response.data))]


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=str)
def test_an_answer_is_as_described(
    generate: Generate, method: str, path: str, body: object
) -> None:
    check_answer(generate.client, method, path, body)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("POST", "/", {"text": "Hello, 你好"}),
        ("POST", "/", {"text": ""}),
        ("POST", "/detokenize", {"ids": [43, 1183]}),
    ],
    ids=str,
)
def test_an_answer_of_tokenize_is_as_described(
    tokenize: Any, method: str, path: str, body: object
) -> None:
    check_answer(tokenize, method, path, body)


def test_every_route_of_json_is_described_and_tried(generate: Generate, tokenize: Any) -> None:
    tried = {(method, path) for method, path, _ in ASKED}
    for client in (generate.client, tokenize):
        for path, operations in client.get("/openapi.json").json["paths"].items():
            for method, operation in operations.items():
                content = operation["responses"]["200"]["content"]
                if "application/json" not in content or path == "/openapi.json":
                    continue
                assert "schema" in content["application/json"], (method, path)
                if client is generate.client:
                    assert (method.upper(), path) in tried


@pytest.mark.parametrize("function", ["generate", "tokenize"])
def test_the_document_tells_of_headers_keys_and_both_kinds_of_error(
    function: str, generate: Generate, tokenize: Any
) -> None:
    client = generate.client if function == "generate" else tokenize
    document = client.get("/openapi.json").json
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("scheme") or scheme.get("name") for scheme in schemes.values()} == {
        "bearer",
        "X-API-Key",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"]
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]["$ref"]
                    family = {"v1": "OpenAIError", "api": "OllamaError"}
                    assert schema.endswith("/" + family.get(path.split("/")[1], "Error"))
            if "504" in operation["responses"]:
                names = [each["name"] for each in operation["parameters"]]
                assert "X-Request-Timeout" in names


def test_every_reference_of_the_document_leads_somewhere(generate: Generate, tokenize: Any) -> None:
    for client in (generate.client, tokenize):
        text = client.get("/openapi.json").text
        document = json.loads(text)
        for part in text.split('"$ref":"#/components/schemas/')[1:]:
            name = part.partition('"')[0]
            Draft202012Validator.check_schema(document["components"]["schemas"][name])
