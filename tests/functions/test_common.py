"""Keys, origins, ids, deadlines and counters: what every route of both functions has."""

import random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from model.serving.request import GenerationRequest
from tests.functions.clients import post_text
from tests.functions.conftest import Generate


def test_generations_are_measured(generate: Generate) -> None:
    for _ in range(2):
        assert generate.post({"prompt": "Hi", "max_new_tokens": 4}).status_code == 200
    families = {f.name: f for f in parse(generate.client.get("/metrics").text)}

    def value(name: str, suffix: str = "") -> float:
        (found,) = [s.value for s in families[name].samples if s.name == name + suffix]
        return float(found)

    assert value("pibloom_prompt_tokens", "_total") == 4
    assert value("pibloom_generated_tokens", "_total") == 8
    for name in ("queue_wait_seconds", "time_to_first_token_seconds", "tokens_per_second"):
        assert value(f"pibloom_{name}", "_count") == 2
    (counted,) = families["pibloom_generations"].samples
    assert (counted.labels, counted.value) == ({"outcome": "length"}, 2)
    assert families["pibloom_steps"].type == "counter"
    assert value("pibloom_steps", "_total") <= value("pibloom_step_sequences", "_total")
    assert value("pibloom_start_seconds") > 0
    assert value("pibloom_running") == value("pibloom_waiting") == 0


def test_tokens_become_text_again(tokenize: Any) -> None:
    ids = post_text(tokenize).json["ids"]
    assert tokenize.post("/detokenize", json={"ids": ids}).json == {"text": "Hi"}
    refused = tokenize.post("/detokenize", json={"ids": [5, 10**9]})
    assert refused.json["error"]["param"] == "ids[1]"


def test_a_header_shortens_the_deadline(generate: Generate) -> None:
    generate.engine.running.clear()
    late = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": "0.3"})
    generate.engine.running.set()
    assert late.status_code == 504
    for more in ("86401", "1e9"):  # which it does not lengthen
        assert (
            generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": more}).status_code == 200
        )
    for odd in ("soon", "-1", "nan", "0", "inf"):
        refused = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": odd})
        assert refused.json["error"]["param"] == "X-Request-Timeout"


def test_warming_reads_what_is_being_typed(generate: Generate) -> None:
    assert generate.client.post("/warm").json["state"] == "ready"
    warmed = generate.client.post("/warm", json={"prompt": "Hello"}).json
    assert warmed == {"state": "ready", "prompt_tokens": 5, "cached_tokens": 0}
    assert generate.client.post("/warm", json={"prompt": 5}).status_code == 422


def test_warming_stays_behind_real_work(generate: Generate) -> None:
    generate.engine.running.clear()
    model = generate.service.get()
    job = model.scheduler.submit(GenerationRequest((5, 6), 3))
    assert generate.client.post("/warm", json={"prompt": "Hello"}).json["prompt_tokens"] == 0
    generate.engine.running.set()
    list(job.events())


def random_json(chance: random.Random, names: list[str], depth: int = 0) -> Any:
    """A value of any kind; objects have known names and others."""
    kind = chance.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return chance.choice([None, True, False, 0, 1, -1, 3, 10**9, 2**70, 0.5, -0.1, 1e300])
    if kind < 6:
        return chance.choice(
            ["", "a", "Hi there", "x" * 70, "user", "text", "你好", "\u0000", "fake"]
        )
    if kind == 6:
        return [random_json(chance, names, depth + 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice([*names, "role", "content", "other"]): random_json(chance, names, depth + 1)
        for _ in range(chance.randrange(5))
    }


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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tools": [{}], "tool_choice": "required"}, "tool_choice required is not supported"),
        ({"response_format": {"type": "json_object"}}, "'json_object' is not supported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type image_url is not supported; BLOOM reads text",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    generate: Generate, asked: dict[str, Any], said: str
) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]} | asked
    refused = generate.client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert said in refused.json["error"]["message"]


def test_fewer_than_asked_for_are_not_the_best(generate: Generate) -> None:
    body = {"model": "fake", "prompt": "a", "best_of": 1}
    assert generate.client.post("/v1/completions", json=body).status_code == 200
    refused = generate.client.post("/v1/completions", json=body | {"n": 2})
    assert refused.json["error"]["message"] == "best_of must not be below n"
