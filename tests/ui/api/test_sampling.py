"""The fields of a request."""

import json
from typing import Any

import httpx

from tests.ui.api.mocked import MESSAGES, STREAM, events, mocked
from tests.ui.fake_functions import done, sse
from ui.api.sampling import SamplingOptions


async def test_the_request_has_the_contracts_fields_and_leaves_out_an_unset_seed() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://127.0.0.1:8081/"
        bodies.append(json.loads(request.content))
        return httpx.Response(200, headers=STREAM, content=sse(done("", 1, 0)))

    await events(mocked(answer))
    await events(mocked(answer), SamplingOptions(temperature=0, seed=2**63 - 1))
    assert bodies[0] == {
        "messages": MESSAGES,
        "stream": True,
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 40,
        "max_new_tokens": 256,
    }
    assert (bodies[1]["temperature"], bodies[1]["seed"]) == (0, 2**63 - 1)
