"""Ollama's routes, checked by the types of its own Python package, where that is installed."""

import json
from typing import Any

import pytest

from tests.functions.conftest import Generate
from tests.functions.generate.ollama.test_routes import (
    CHAT,
    CHAT_NEUTRAL,
    NEUTRAL,
    OPTION_DONE,
    OPTION_NEUTRAL,
    PROMPT,
    PROMPT_NEUTRAL,
    PROMPT_REFUSED,
)

types: Any = pytest.importorskip("ollama._types")


def read(kind: str, reply: Any) -> None:
    getattr(types, kind).model_validate(reply)


def test_ollamas_package_reads_every_reply(generate: Generate) -> None:
    read("ListResponse", generate.client.get("/api/tags").json)
    read("ProcessResponse", generate.client.get("/api/ps").json)
    read("ShowResponse", generate.client.post("/api/show", json={"model": "fake"}).json)
    for (route, body), kind in ((CHAT, "ChatResponse"), (PROMPT, "GenerateResponse")):
        lines = generate.client.post(route, json=body | {"logprobs": True}).get_data().splitlines()
        for line in lines:
            read(kind, json.loads(line))


def test_every_field_of_ollamas_package_is_in_a_table() -> None:
    options = {name for name, _ in (*OPTION_NEUTRAL, *OPTION_DONE)}
    assert set(types.Options.model_fields) - options == set()
    common = {name for name, _ in NEUTRAL} | {"model", "stream"}
    chat = common | {name for name, _ in CHAT_NEUTRAL}
    assert set(types.ChatRequest.model_fields) - chat == set()
    prompt = common | {name for name, _ in PROMPT_NEUTRAL}
    prompt |= {name for name, _, _ in PROMPT_REFUSED} | {"prompt"}
    assert set(types.GenerateRequest.model_fields) - prompt == set()
