"""Keys, origins, ids, deadlines and counters: what every route of both functions has."""

import random
import re
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from functions.metrics import Registry
from functions.settings import Secret, SettingError, Settings, keys_of, origins_of
from model.serving.request import GenerationRequest
from tests.functions.conftest import ROOT, Generate

SECRET = "a-secret-key"


def make(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    for name, value in environment.items():
        monkeypatch.setenv(f"PIBLOOM_{name}", value)
    source = ROOT / "functions" / "tokenize" / "main.py"
    app = functions_framework.create_app("tokenize", str(source))
    service = app.extensions["pibloom"]
    service.start()
    service.wait(20)
    return app.test_client()


def post(client: Any, **headers: str) -> Any:
    return client.post("/", json={"text": "Hi"}, headers=headers)


def test_without_a_key_nothing_is_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("from-a-file\n\n")
    client = make(monkeypatch, API_KEYS=f"{SECRET}, other", API_KEYS_FILE=str(file))
    for headers, said in (
        ({}, "none was sent"),
        ({"Authorization": ""}, "none was sent"),
        ({"Authorization": "Bearer"}, "none was sent"),
        ({"Authorization": "Bearer "}, "none was sent"),
        ({"Authorization": "bearer wrong"}, "none of those"),
        ({"Authorization": "Bearer", "X-API-Key": "wrong"}, "none of those"),
        ({"Authorization": "Bearer wrong"}, "none of those"),
        ({"X-API-Key": "wrong"}, "none of those"),
        ({"Authorization": SECRET}, "another scheme"),
    ):
        refused = post(client, **headers)
        assert refused.status_code == 401
        assert refused.json["error"]["type"] == "unauthorized"
        assert said in refused.json["error"]["message"]
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        v1 = client.post("/v1/chat/completions", json={}, headers=headers).json["error"]
        wrong = said == "none of those"
        assert (v1["type"], v1["code"]) == (
            "authentication_error",
            "invalid_api_key" if wrong else None,
        )
    for key in (SECRET, "other", "from-a-file"):
        assert post(client, Authorization=f"Bearer {key}").status_code == 200
    assert post(client, **{"X-API-Key": SECRET}).status_code == 200
    assert post(client, **{"Authorization": "Bearer", "X-API-Key": SECRET}).status_code == 200
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/").status_code == 401


def test_metrics_can_want_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(monkeypatch, API_KEYS=SECRET, OPEN_METRICS="0")
    assert client.get("/metrics").status_code == 401


def test_a_key_file_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(SettingError, match="PIBLOOM_API_KEYS_FILE"):
        keys_of(Settings(api_keys_file="/nothing/here"))


def test_only_pages_of_known_origins_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(monkeypatch, CORS_ORIGINS="https://chat.example", API_KEYS=SECRET)
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    allowed = client.options("/", headers=asked)
    assert allowed.status_code == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://chat.example"
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    other = post(client, Origin="https://evil.example", Authorization=f"Bearer {SECRET}")
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers["Vary"]


def test_a_request_keeps_its_id_and_its_trace(tokenize: Any) -> None:
    assert post(tokenize, **{"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = post(tokenize, traceparent=trace).headers
    assert found["traceparent"] == trace
    assert found["X-Request-Id"] == "0af7651916cd43dd8448eb211c80319c"
    for odd in ("", "a b", "x" * 65, "a\tb"):
        assert re.fullmatch(
            "[0-9a-f]{32}", post(tokenize, **{"X-Request-Id": odd}).headers["X-Request-Id"]
        )


def test_what_was_answered_is_counted(tokenize: Any) -> None:
    for reply in (post(tokenize), tokenize.post("/", json={}), tokenize.get("/nowhere/1")):
        reply.close()  # the last byte is sent
    scraped = tokenize.get("/metrics")
    assert scraped.content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse(scraped.text)}
    counted = {
        (s.labels["path"], s.labels["code"]): s.value for s in families["pibloom_requests"].samples
    }
    assert counted[("/", "200")] == counted[("/", "422")] == counted[("other", "404")] == 1
    seconds = {s.name: s.value for s in families["pibloom_request_seconds"].samples}
    assert seconds["pibloom_request_seconds_count"] == 3


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
    ids = post(tokenize).json["ids"]
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
    ("body", "said"),
    [
        ({"prompt": 5}, "prompt: Expected a text, but got 5"),
        (
            {"prompt": "a", "temperature": "hot"},
            "Expected a number, but got a text of 3 characters",
        ),
        ({"prompt": "a", "stop": 1}, "stop: Expected a text or a list, but got 1"),
        ({"prompt": "a", "max_new_tokens": 0}, "Expected a whole number >= 1, but got 0"),
        ({"prompt": "a", "stream": "yes"}, "Expected true or false"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]},
            "messages[1].role: Expected 'assistant' or 'system' or 'user', but got a text of 4",
        ),
    ],
)
def test_a_wrong_field_is_told_in_words(generate: Generate, body: Any, said: str) -> None:
    assert said in generate.post(body).json["error"]["message"]


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


def test_a_compressed_body_is_refused(tokenize: Any) -> None:
    assert post(tokenize, **{"Content-Encoding": "gzip"}).status_code == 415


def test_strangers_cannot_fill_the_memory_with_counters(tokenize: Any) -> None:
    for number in range(20):
        tokenize.post(f"/stranger{number}", data=b"x" * (1 << 21))
        tokenize.open("/", method=f"FOO{number}")
        tokenize.get(f"/v1/models/{number}")
    lines = [x for x in tokenize.get("/metrics").text.splitlines() if "requests_total{" in x]
    assert len(lines) < 8


def test_a_pages_own_headers_are_allowed_and_ours_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = make(monkeypatch, CORS_ORIGINS="https://chat.example")
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "content-type, x-stainless-lang"
    allowed = client.options("/", headers=asked).headers
    assert allowed["Access-Control-Allow-Headers"] == "content-type, x-stainless-lang"
    assert "Retry-After" in allowed["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origins", ["*", "https://a.example/", "a.example"])
def test_an_origin_that_no_browser_sends_is_refused(origins: str) -> None:
    with pytest.raises(SettingError, match="PIBLOOM_CORS_ORIGINS"):
        origins_of(Settings(cors_origins=origins))


@pytest.mark.parametrize("keys", [" , ", "kéy"])
def test_keys_that_are_none_do_not_open_the_door(keys: str) -> None:
    with pytest.raises(SettingError):
        keys_of(Settings(api_keys=Secret(keys)))


def test_large_counters_keep_every_digit() -> None:
    metrics = Registry()
    counter = metrics.counter("a_total", "A.")
    counter.add(123_456_789_012)
    counter.add(1)
    assert "a_total 123456789013" in metrics.text()
