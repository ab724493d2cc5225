"""The client of the functions: whole replies, and what ends them."""

import asyncio
from contextlib import aclosing

import httpx

from tests.ui.api.mocked import (
    MESSAGES,
    STREAM,
    Bytes,
    answering,
    events,
    failure,
    streaming,
)
from tests.ui.fake_functions import Answer, Fake, done, sse, token
from ui.api import events as api
from ui.api.client import FunctionsClient
from ui.api.sampling import SamplingOptions
from ui.settings import Settings


async def test_a_stream_that_ends_without_its_terminal_event_is_a_failure() -> None:
    caught = await failure(streaming(sse(token("Hel", 0)).encode()))
    assert caught.kind == "broken"
    assert caught.away


async def test_a_lost_connection_is_a_failure() -> None:
    caught = await failure(streaming(b": stream\n\n", then=httpx.ReadError("reset")))
    assert caught.kind == "broken"


async def test_closing_the_iterator_closes_the_connection() -> None:
    body = Bytes(sse(token("a", 0)).encode(), hang=True)
    functions = answering(httpx.Response(200, headers=STREAM, stream=body))
    async with aclosing(functions.reply(MESSAGES, SamplingOptions())) as stream:
        await anext(stream)
    assert body.closed


async def test_tokens_are_counted(fake: Fake) -> None:
    functions = FunctionsClient(Settings(fake.generate_url, fake.tokenize_url))
    assert await functions.count_tokens("three small words") == 3
    await functions.aclose()


async def test_tokens_arrive_one_by_one_over_a_real_connection(fake: Fake) -> None:
    gate = asyncio.Event()
    fake.answers = [Answer([token("one", 0), gate, token(" two", 1), done("one two", 1, 2)])]
    functions = FunctionsClient(Settings(fake.generate_url, fake.tokenize_url))
    async with aclosing(functions.reply(MESSAGES, SamplingOptions())) as stream:
        assert await anext(stream) == api.TokenEvent("one", 1)  # before the second one exists
        gate.set()
        assert await anext(stream) == api.TokenEvent(" two", 2)
    await functions.aclose()


async def test_a_cancelled_reply_is_seen_by_the_function(fake: Fake) -> None:
    fake.answers = [Answer([token("one", 0), asyncio.Event()])]
    functions = FunctionsClient(Settings(fake.generate_url, fake.tokenize_url))

    async def read() -> None:
        await events(functions)

    task = asyncio.create_task(read())
    await fake.wait_for(lambda: fake.running == 1)
    task.cancel()
    await fake.wait_for(lambda: fake.left == 1)
    await functions.aclose()
