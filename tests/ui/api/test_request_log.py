"""What is logged of requests that fail."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from common.settings import Secret
from tests.ui.api.mocked import (
    events,
    failure,
    mocked,
)
from tests.ui.fake_functions import Fake, both, error, refusal
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.settings import Settings


async def test_a_request_brings_its_key_and_an_id_that_a_failure_is_logged_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with both(Fake()) as fake:
        settings = Settings(generate_url=fake.generate_url, api_key=Secret("a-secret-key"))
        functions = FunctionsClient(settings)
        fake.answers = [refusal("overloaded", 429)]
        with pytest.raises(FunctionError):
            await events(functions)
        await functions.aclose()
    (brought,) = fake.headers
    assert brought["authorization"] == "Bearer a-secret-key"
    version, trace, parent, flags = brought["traceparent"].split("-")
    assert (version, len(trace), len(parent), flags) == ("00", 32, 16, "01")
    assert trace in caplog.text
    assert "a-secret-key" not in caplog.text
    assert "Hello" not in caplog.text


async def test_what_pages_ask_by_themselves_is_logged_once_until_it_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now: Callable[[], httpx.Response]

    def away() -> httpx.Response:
        raise httpx.ConnectError("refused")

    def loads() -> httpx.Response:
        return httpx.Response(503, json=error("loading", 503, "No."))

    def answers() -> httpx.Response:
        return httpx.Response(200, json={"state": "ready", "count": 3})

    functions = mocked(lambda request: now())

    async def page() -> None:
        asked = (
            functions.check_ready(),
            functions.status(),
            functions.warm([]),
            functions.count_tokens("a"),
        )
        for each in asked:
            with suppress(FunctionError):
                await each

    for now in (away, loads, away, answers, away):  # noqa: B007
        for _ in range(20):
            await asyncio.gather(page(), page(), page())
    lines = [record.getMessage().partition(", request")[0] for record in caplog.records]
    for who, paths in (("generate", ("/readyz", "/", "/warm")), ("tokenize", ("/",))):
        reported = [line for line in lines if line.startswith(who)]
        assert reported.count(f"{who}: unreachable") == 2 * len(paths)
        assert reported.count(f"{who}: status 503") == len(paths)
        assert [f"{who}: {path} answers again" in reported for path in paths] == [True] * len(paths)
        assert len(reported) == 4 * len(paths)
    caplog.clear()
    for now in (away, away):  # noqa: B007
        await failure(functions)
    assert caplog.text.count("generate: unreachable") == 2, "a person's own request is logged"
