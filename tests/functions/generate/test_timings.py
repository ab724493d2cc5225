"""What replies tell of their speed, however short they are."""

import json
import time
from typing import Any

import pytest

from model.serving.events import Done
from tests.functions.conftest import Generate

STEP = 0.01  # seconds that each of the engine's takes at least
TURN = {"role": "user", "content": "Hi"}
USAGE = {"stream_options": {"include_usage": True}}
# A route, how its limit is called, and the rest of its body.
ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("/", "max_new_tokens", {"prompt": "Hi"}),
    ("/", "max_new_tokens", {"messages": [TURN]}),
    ("/", "max_new_tokens", {"prompt": "Hi", "stream": True}),
    ("/v1/completions", "max_tokens", {"prompt": "Hi"}),
    ("/v1/completions", "max_tokens", {"prompt": ["Hi", "Ho"], "logprobs": 1}),
    ("/v1/completions", "max_tokens", {"prompt": "Hi", "echo": True}),
    ("/v1/completions", "max_tokens", {"prompt": "Hi", "echo": True, "logprobs": 1}),
    ("/v1/completions", "max_tokens", {"prompt": "Hi", "n": 2}),
    ("/v1/completions", "max_tokens", {"prompt": "Hi", "stream": True} | USAGE),
    ("/v1/chat/completions", "max_tokens", {"messages": [TURN]}),
    ("/v1/chat/completions", "max_completion_tokens", {"messages": [TURN], "n": 2}),
    ("/v1/chat/completions", "max_tokens", {"messages": [TURN], "stream": True} | USAGE),
    ("/v1/responses", "max_output_tokens", {"input": "Hi"}),
    ("/v1/responses", "max_output_tokens", {"input": "Hi", "stream": True}),
    ("/api/generate", "num_predict", {"prompt": "Hi", "stream": False}),
    ("/api/generate", "num_predict", {"prompt": "Hi"}),
    ("/api/chat", "num_predict", {"messages": [TURN], "stream": False}),
    ("/api/chat", "num_predict", {"messages": [TURN]}),
]


def values(found: Any, name: str) -> list[Any]:
    """Return every value of a name in JSON."""
    if isinstance(found, list):
        return [each for inner in found for each in values(inner, name)]
    if not isinstance(found, dict):
        return []
    own = [found[name]] if name in found else []
    return own + [each for inner in found.values() for each in values(inner, name)]


def parts(text: str) -> list[Any]:
    """Return the JSON of a reply, of its events, or of its lines."""
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines() if line]
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def speeds(found: list[Any], path: str) -> list[float]:
    """Return the speed that a reply states, or that Ollama's clients compute from it."""
    if not path.startswith("/api/"):
        return [float(each) for each in values(found, "tokens_per_second")]
    counts, durations = values(found, "eval_count"), values(found, "eval_duration")
    assert all(each >= 0 for each in durations)
    return [
        count * 1e9 / spent if spent else 0.0
        for count, spent in zip(counts, durations, strict=True)
    ]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
@pytest.mark.parametrize(("path", "field", "body"), ROUTES, ids=str)
def test_no_speed_is_negative_or_above_what_the_engine_can(
    generate: Generate, path: str, field: str, body: dict[str, Any], limit: int
) -> None:
    generate.engine.before_step = lambda: time.sleep(STEP)
    limits = {"options": {field: limit}} if path.startswith("/api/") else {field: limit}
    response = generate.client.post(path, json=body | limits)
    if response.status_code != 200:
        assert limit == 0 or path == "/v1/responses"  # OpenAI's takes no less than 16
        assert response.status_code in (400, 422)
        return
    found = parts(response.get_data(as_text=True))
    reported = speeds(found, path)
    assert reported
    for speed in reported:
        # Ollama counts the first token too, though it took no step of its own.
        count = max(values(found, "eval_count"), default=0)
        most = 1 / STEP * (count / (count - 1) if count > 1 else 1)
        assert 0 <= speed <= most + 1
        assert (speed > 0) is (limit > 1 or (path.startswith("/api/") and limit == 0))
    for name in ("queued_ms", "prefill_ms", "decode_ms"):
        assert all(each >= 0 for each in values(found, name))


@pytest.mark.parametrize(("path", "field", "body"), ROUTES, ids=str)
def test_a_reply_that_ends_at_once_has_no_speed(
    generate: Generate, path: str, field: str, body: dict[str, Any]
) -> None:
    generate.engine.reply = []
    limits = {"options": {field: 16}} if path.startswith("/api/") else {field: 16}
    response = generate.client.post(path, json=body | limits)
    assert response.status_code == 200, response.data
    reported = speeds(parts(response.get_data(as_text=True)), path)
    assert reported
    assert not any(reported)


@pytest.mark.parametrize(
    ("tokens", "seconds", "speed"),
    [(0, 0.0, 0), (0, 1e-6, 0), (1, 0.0, 0), (1, 1e-6, 0), (2, 0.0, 0), (2, 0.5, 2), (9, 2.0, 4)],
)
def test_a_speed_is_that_of_the_steps_that_were_taken(
    tokens: int, seconds: float, speed: float
) -> None:
    done = Done("", "length", 1, tokens, 0, queued_s=0, prefill_s=1, decode_s=seconds)
    assert done.tokens_per_second == speed
