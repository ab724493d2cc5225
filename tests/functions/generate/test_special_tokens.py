"""What a post-processor puts around a text: around a prompt, and never around a chat."""

from typing import Any

import pytest

from model.text.tokenizer import BEGIN, END
from tests.functions.conftest import Generate

TURNS = [{"role": "user", "content": "Hi"}]
PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("/", {"prompt": "Hi"}),
    ("/v1/completions", {"prompt": "Hi"}),
    ("/v1/completions", {"prompt": ["Hi"]}),
    ("/api/generate", {"model": "fake", "prompt": "Hi", "raw": True, "stream": False}),
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("/", {"messages": TURNS}),
    ("/v1/chat/completions", {"messages": TURNS}),
    ("/v1/responses", {"input": "Hi"}),
    ("/api/chat", {"model": "fake", "messages": TURNS, "stream": False}),
    ("/v1/completions", {"prompt": [5, 6]}),
]


def prompt_of(generate: Generate, path: str, body: dict[str, Any]) -> list[int]:
    if "model" in body:
        body = body | {"model": generate.service.get().info.name}
    response = generate.client.post(path, json=body)
    assert response.status_code == 200, response.json
    return generate.engine.steps[-1][-1][0].prompt


@pytest.fixture
def surrounding(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> Generate:
    """A model whose tokenizer puts `<s>` before a prompt, and `</s>` behind it."""
    tokenizer = generate.service.get().tokenizer
    monkeypatch.setattr(tokenizer, "_before", [BEGIN])
    monkeypatch.setattr(tokenizer, "_after", [END])
    return generate


@pytest.mark.parametrize(("path", "body"), PROMPTS, ids=str)
def test_a_prompt_is_read_as_the_tokenizer_has_it(
    surrounding: Generate, path: str, body: dict[str, Any]
) -> None:
    tokenizer = surrounding.service.get().tokenizer
    plain = tokenizer.ids("Hi", add_special_tokens=False)
    expected = [BEGIN, *plain, END]
    assert prompt_of(surrounding, path, body) == expected
    assert tokenizer.encode("Hi").ids == expected  # which is what the function tokenize shows


@pytest.mark.parametrize(("path", "body"), OTHERS, ids=str)
def test_nothing_is_put_around_chats_and_ids(
    surrounding: Generate, path: str, body: dict[str, Any]
) -> None:
    found = prompt_of(surrounding, path, body)
    assert found[0] != BEGIN
    assert found[-1] != END
