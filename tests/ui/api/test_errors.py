"""Every way to fail is one kind of error, with a sentence for people."""

import asyncio

import httpx
import pytest

from tests.ui.api.mocked import (
    answering,
    failure,
)
from tests.ui.fake_functions import Fake, both, refusal
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.settings import Settings


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxys_plain_text_means_that_the_function_is_away(status: int) -> None:
    caught = await failure(answering(httpx.Response(status, text="upstream connect error")))
    assert (caught.kind, caught.status, caught.away) == ("unavailable", status, True)
    assert "upstream" not in caught.message


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_html_of_something_else_is_not_shown(status: int) -> None:
    response = httpx.Response(status, html="<h1>It works!</h1>")
    caught = await failure(answering(response))
    assert caught.kind == "foreign"
    assert "<" not in caught.message


async def test_a_refused_connection_is_a_failure() -> None:
    async with both(Fake()) as gone:
        settings = Settings(generate_url=gone.generate_url, tokenize_url=gone.tokenize_url)
    functions = FunctionsClient(settings)
    assert (await failure(functions)).kind == "unreachable"
    with pytest.raises(FunctionError, match="cannot be reached"):
        await functions.count_tokens("text")
    with pytest.raises(FunctionError, match="cannot be reached"):
        await functions.check_ready()


async def test_a_function_that_accepts_and_never_answers_is_a_failure() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        functions = FunctionsClient(Settings(url, url), wake_s=0.2, short_s=0.2)
        assert (await failure(functions)).kind == "silent"
        with pytest.raises(FunctionError, match="does not answer"):
            await functions.count_tokens("text")


async def test_a_refusal_carries_what_the_chat_needs_to_go_on() -> None:
    full = refusal("context_full", 422, "Full.", prompt_tokens=900, max_context=512)
    response = httpx.Response(full.status, text=full.body, headers=full.headers)
    caught = await failure(answering(response))
    assert (caught.kind, caught.prompt_tokens, caught.max_context) == ("context_full", 900, 512)


async def test_a_full_queue_says_when_to_come_back() -> None:
    busy = refusal("overloaded", 429)
    caught = await failure(answering(httpx.Response(429, text=busy.body, headers=busy.headers)))
    assert (caught.kind, caught.retry_after) == ("overloaded", 3)
    assert "3 s" in caught.message
