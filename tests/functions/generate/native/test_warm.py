"""What is read ahead takes nothing from what was asked for."""

from collections.abc import Iterator
from typing import Any

import functions_framework
import pytest

from model.serving.request import GenerationRequest
from tests.functions.conftest import Generate
from tests.functions.servers import ROOT, wait_until

PAGE_BYTES = 69_632  # of the demo model: 16 tokens


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The function on the demo model, with memory for 3,200 tokens, half of them kept."""
    monkeypatch.setenv("PIBLOOM_KV_MEMORY", str(200 * PAGE_BYTES))
    source = ROOT / "functions" / "generate" / "main.py"
    app = functions_framework.create_app("generate", str(source))
    service = app.extensions["pibloom"]
    service.start()
    assert service.wait(60)
    client = app.test_client()
    client.service = service
    yield client
    service.close(0)


def ask(client: Any, path: str, body: dict[str, Any]) -> Any:
    wait_until(lambda: client.service.get().scheduler.idle)
    response = client.post(path, json=body)
    assert response.status_code == 200, response.data
    return response.json


def text_of(client: Any, tokens: int, word: str) -> str:
    tokenizer = client.service.get().tokenizer
    return str(tokenizer.decode((tokenizer.ids(f" {word}") * tokens)[:tokens]))


def test_long_texts_that_are_warmed_push_no_chat_out(client: Any) -> None:
    chat = text_of(client, 656, "chat")
    first = ask(client, "/", {"prompt": chat, "max_new_tokens": 1})["usage"]
    assert (first["prompt_tokens"], first["cached_tokens"]) == (656, 0)
    for word in ("one", "two", "six"):
        warmed = ask(client, "/warm", {"prompt": text_of(client, 1000, word)})
        assert warmed["prompt_tokens"] == 1000
    again = ask(client, "/", {"prompt": f"{chat} and so on", "max_new_tokens": 1})["usage"]
    assert again["cached_tokens"] == 656


def test_what_was_warmed_is_there_when_it_is_asked_for(client: Any) -> None:
    ask(client, "/", {"prompt": text_of(client, 656, "chat"), "max_new_tokens": 1})
    ask(client, "/warm", {"prompt": text_of(client, 500, "one")})
    usage = ask(client, "/", {"prompt": text_of(client, 500, "one"), "max_new_tokens": 1})["usage"]
    assert usage["cached_tokens"] == 496


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
