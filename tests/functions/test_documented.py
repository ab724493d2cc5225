"""Each answer to a random request is one that the function's document names."""

import random
from typing import Any

from tests.functions.conftest import Generate
from tests.functions.random_bodies import random_json


def check_document(client: Any, document: Any, requests: int) -> None:
    """Send random bodies to every route; each answer must be one that the document names."""
    chance = random.Random(0)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names: list[str] = []
            if body := operation.get("requestBody"):
                reference = body["content"]["application/json"]["schema"]["$ref"]
                schema = document["components"]["schemas"][reference.rpartition("/")[2]]
                names = list(schema["properties"])
            for _ in range(requests if names else 3):
                given = {
                    name: random_json(chance, names)
                    for name in chance.sample(names, chance.randrange(min(4, len(names)) + 1))
                } | ({"max_tokens": 2} if "max_tokens" in names else {})
                response = client.open(
                    path.replace("{name}", chance.choice(["fake", "x", "é"])),
                    method=method.upper(),
                    json=given if names else None,
                )
                assert str(response.status_code) in operation["responses"], (path, given)
                content = operation["responses"][str(response.status_code)]["content"]
                assert response.mimetype in content, (path, given)
                response.close()


def test_every_answer_of_generate_is_documented(generate: Generate) -> None:
    document = generate.client.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    check_document(generate.client, document, 150)


def test_every_answer_of_tokenize_is_documented(tokenize: Any) -> None:
    check_document(tokenize, tokenize.get("/openapi.json").json, 150)


def test_every_route_is_documented(generate: Generate, tokenize: Any) -> None:
    for client in (generate.client, tokenize):
        paths = client.get("/openapi.json").json["paths"]
        for path in paths:
            assert client.options(path.replace("{name}", "fake")).status_code == 204
    known = {"/", "/chat/", "/warm", "/v1/completions", "/v1/chat/completions", "/v1/models"}
    assert known < set(generate.client.get("/openapi.json").json["paths"])
