"""What the holder of one key sees says nothing of another key's requests."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import functions_framework
import pytest

from model import load
from model.names import default_model
from model.serving.events import Done
from model.serving.request import GenerationRequest
from tests.functions.answers import events_of
from tests.functions.servers import ROOT, wait_until

pytestmark = pytest.mark.slow

SECRET = "The password of the safe is 4711, and nobody but us two may know of it. " * 8
GUESSES = {"right": SECRET, "wrong": SECRET.replace("The", "In", 1)}  # of as many tokens
OF_THE_PROMPT = (
    "cached_tokens", "prompt_tokens", "input_tokens", "prompt_eval_count", "done", "total"
)  # fmt: skip
KEYS = {name: f"key-of-{name}-with-many-characters" for name in ("anna", "bert")}
TURNS = {name: [{"role": "user", "content": text}] for name, text in GUESSES.items()}

Body = Callable[[str], dict[str, Any]]
ROUTES: list[tuple[str, Body]] = [
    ("/", lambda guess: {"prompt": GUESSES[guess], "max_new_tokens": 2}),
    ("/", lambda guess: {"messages": TURNS[guess], "max_new_tokens": 2}),
    ("/", lambda guess: {"prompt": GUESSES[guess], "max_new_tokens": 2, "stream": True}),
    ("/warm", lambda guess: {"prompt": GUESSES[guess]}),
    ("/warm", lambda guess: {"messages": TURNS[guess]}),
    ("/v1/completions", lambda guess: {"prompt": GUESSES[guess], "max_tokens": 2}),
    ("/v1/completions", lambda guess: {"prompt": [GUESSES[guess]] * 2, "max_tokens": 0}),
    ("/v1/completions", lambda guess: {"prompt": GUESSES[guess], "max_tokens": 2, "echo": True}),
    (
        "/v1/completions",
        lambda guess: {
            "prompt": GUESSES[guess],
            "max_tokens": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    ("/v1/chat/completions", lambda guess: {"messages": TURNS[guess], "max_tokens": 2}),
    (
        "/v1/chat/completions",
        lambda guess: {
            "messages": TURNS[guess],
            "max_tokens": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    ("/v1/responses", lambda guess: {"input": GUESSES[guess], "max_output_tokens": 16}),
    (
        "/v1/responses",
        lambda guess: {"input": GUESSES[guess], "max_output_tokens": 16, "stream": True},
    ),
    (
        "/api/generate",
        lambda guess: {
            "prompt": GUESSES[guess],
            "raw": True,
            "options": {"num_predict": 2},
            "stream": False,
        },
    ),
    (
        "/api/chat",
        lambda guess: {
            "messages": TURNS[guess],
            "options": {"num_predict": 2},
            "stream": False,
        },
    ),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The function with two keys, on the demo model itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIBLOOM_API_KEYS", ",".join(KEYS.values()))
        source = ROOT / "functions" / "generate" / "main.py"
        app = functions_framework.create_app("generate", str(source))
        service = app.extensions["pibloom"]
        service.start()
        assert service.wait(60)
        client = app.test_client()
        client.service = service
        yield client
        service.close(0)


def ask(client: Any, who: str, path: str, body: dict[str, Any]) -> Any:
    scheduler = client.service.get().scheduler
    wait_until(lambda: scheduler.idle)
    response = client.post(path, json=body, headers={"X-API-Key": KEYS[who]})
    assert response.status_code == 200, response.data
    response.get_data()
    return response


def forget(client: Any) -> None:
    """Empty the cache, and what it knows of tenants."""
    scheduler = client.service.get().scheduler
    wait_until(lambda: scheduler.idle)
    pool = scheduler._engine.pool
    limit, pool._cache_limit = pool._cache_limit, 0
    pool.release(pool.open([1], 1))
    pool._cache_limit = limit
    assert pool.bytes_cached == 0


def parts(response: Any) -> list[Any]:
    """Return a whole reply, or the events of a stream."""
    text = response.get_data(as_text=True)
    if response.content_type.startswith("application/json"):
        return [json.loads(text)]
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line[:5] == "data:"]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def numbers(value: Any) -> list[tuple[str, int]]:
    """Return every number that an answer holds about a prompt."""
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    if not isinstance(value, dict):
        return []
    own = [(name, value[name]) for name in OF_THE_PROMPT if type(value.get(name)) is int]
    return own + [each for inner in value.values() for each in numbers(inner)]


def cached(response: Any) -> list[int]:
    return [number for name, number in numbers(parts(response)) if name == "cached_tokens"]


@pytest.mark.parametrize("by", ["asked", "warmed"])
@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_right_guess_is_answered_as_a_wrong_one(
    client: Any, path: str, body: Body, by: str
) -> None:
    forget(client)
    nobody_asked = numbers(parts(ask(client, "bert", path, body("right"))))
    for guess in GUESSES:
        forget(client)
        for mine in ({"prompt": SECRET}, {"messages": TURNS["right"]}):
            if by == "asked":
                ask(client, "anna", "/", mine | {"max_new_tokens": 2})
            else:
                ask(client, "anna", "/warm", mine)
        assert numbers(parts(ask(client, "bert", path, body(guess)))) == nobody_asked


@pytest.mark.parametrize(("path", "body"), [each for each in ROUTES if "/api/" not in each[0]])
def test_a_key_is_told_of_what_it_asked_itself(client: Any, path: str, body: Body) -> None:
    forget(client)
    ask(client, "bert", path, body("right"))
    assert max(cached(ask(client, "bert", path, body("right")))) > 0


def test_metrics_count_what_a_key_had_asked_itself(client: Any) -> None:
    """They can be read with any key."""

    def count() -> float:
        text = client.get("/metrics", headers={"X-API-Key": KEYS["bert"]}).text
        return next(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("pibloom_cached_tokens_total ")
        )

    forget(client)
    before = count()
    for who in ("anna", "bert"):
        ask(client, who, "/", {"prompt": SECRET, "max_new_tokens": 2})
        assert count() == before
    ask(client, "bert", "/", {"prompt": SECRET, "max_new_tokens": 2})
    assert count() > before


def test_a_streams_progress_has_the_steps_of_a_prompt_that_nobody_knew(client: Any) -> None:
    body = {"prompt": SECRET, "max_new_tokens": 1, "stream": True}

    def steps(who: str) -> list[int]:
        events = events_of(ask(client, who, "/", body))
        return [data["done"] for _, data in events if data.get("state") == "prefill"]

    forget(client)
    unknown = steps("anna")
    assert len(unknown) > 3
    assert steps("bert") == unknown
    assert len(steps("anna")) == len(steps("bert")) == 1  # for each its own now


def test_keys_and_what_stands_for_them_are_told_nowhere(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        response = ask(client, "anna", "/", {"prompt": SECRET, "max_new_tokens": 1})
    said = caplog.text + response.get_data(as_text=True) + repr(response.headers)
    readers = client.service.get().scheduler._engine.pool._readers.values()
    tenants = {tenant for some in readers for tenant in some}
    assert tenants
    assert not tenants & set(KEYS.values())
    for secret in (*tenants, *KEYS.values()):
        assert secret not in said


def test_without_keys_everybody_is_told_of_everything() -> None:
    model = load.load(default_model())
    try:
        ids = tuple(model.tokenizer.ids(SECRET))
        for expected in (False, True):
            *_, last = model.scheduler.submit(GenerationRequest(ids, 1)).events()
            assert isinstance(last, Done)
            assert bool(last.cached_tokens) is expected
    finally:
        model.close()
