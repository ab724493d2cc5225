"""The client of the functions: events as they come, and one plain sentence for every trouble."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest

from common.settings import Secret
from tests.ui.fake_functions import Answer, Fake, both, done, error, refusal, sse, token
from ui.api import events as api
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.sampling import SamplingOptions
from ui.api.status import FunctionStatus
from ui.settings import Settings

pytestmark = pytest.mark.asyncio

MESSAGES = [{"role": "user", "content": "Hello"}]
STREAM = {"content-type": "text/event-stream"}


class Bytes(httpx.AsyncByteStream):
    """A body in parts; it may end early, with an exception, or never."""

    def __init__(self, *parts: bytes, then: Exception | None = None, hang: bool = False) -> None:
        self._parts, self._then, self._hang = parts, then, hang
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._hang:
            await asyncio.Event().wait()
        if self._then:
            raise self._then

    async def aclose(self) -> None:
        self.closed = True


def mocked(answer: Callable[[httpx.Request], httpx.Response], **limits: float) -> FunctionsClient:
    return FunctionsClient(Settings(), transport=httpx.MockTransport(answer), **limits)


def answering(response: httpx.Response, **limits: float) -> FunctionsClient:
    return mocked(lambda request: response, **limits)


def streaming(*parts: bytes, **how: Any) -> FunctionsClient:
    return answering(httpx.Response(200, headers=STREAM, stream=Bytes(*parts, **how)), idle_s=0.2)


async def events(
    functions: FunctionsClient, options: SamplingOptions | None = None
) -> list[api.ReplyEvent]:
    stream = functions.reply(MESSAGES, options or SamplingOptions())
    async with asyncio.timeout(5), aclosing(stream):
        return [event async for event in stream]


async def failure(functions: FunctionsClient) -> FunctionError:
    with pytest.raises(FunctionError) as caught:
        await events(functions)
    return caught.value


async def test_every_event_of_the_contract_arrives_as_its_type() -> None:
    wire = ": stream\n\n"
    wire += sse({"status": {"state": "loading"}}) + sse(
        {"status": {"state": "queued", "position": 3}}
    )
    wire += sse({"status": {"state": "prefill", "done": 64, "total": 300}}) + ": keep-alive\n\n"
    wire += sse({"status": {"state": "generating"}}) + sse({"later": {"unknown": True}})
    wire += sse(token("Hé", 0)) + sse(done("Hé", 4, 1, seed=7))
    *others, last = await events(streaming(wire.encode()))
    assert others == [
        api.LoadingEvent(),
        api.QueuedEvent(3),
        api.PrefillEvent(64, 300),
        api.GeneratingEvent(),
        api.TokenEvent("Hé", 1),
    ]
    assert last == api.DoneEvent("Hé", "stop", 7, 4, 1, 12.34, 1.02)


async def test_characters_cut_between_two_packets_stay_whole() -> None:
    wire = (sse(token("你好 مرحبا 🌸", 0)) + sse(done("你好 مرحبا 🌸", 4, 1))).encode()
    first, _ = await events(streaming(*(bytes([byte]) for byte in wire)))
    assert first == api.TokenEvent("你好 مرحبا 🌸", 1)


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


async def test_a_stream_that_ends_without_its_terminal_event_is_a_failure() -> None:
    caught = await failure(streaming(sse(token("Hel", 0)).encode()))
    assert caught.kind == "broken"
    assert caught.away


async def test_a_lost_connection_is_a_failure() -> None:
    caught = await failure(streaming(b": stream\n\n", then=httpx.ReadError("reset")))
    assert caught.kind == "broken"


async def test_a_stream_that_goes_silent_is_a_failure() -> None:
    caught = await failure(streaming(b": stream\n\n", hang=True))
    assert caught.kind == "silent"


async def test_heartbeats_keep_a_slow_stream_alive() -> None:
    class Slow(Bytes):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(6):
                await asyncio.sleep(0.05)
                yield b": keep-alive\n\n"
            yield sse(done("", 1, 0)).encode()

    response = httpx.Response(200, headers=STREAM, stream=Slow())
    (last,) = await events(answering(response, idle_s=0.2))
    assert isinstance(last, api.DoneEvent)


async def test_an_error_event_ends_the_stream_with_its_kind() -> None:
    wire = sse(token("Hel", 0)) + sse({"error": error("deadline", 504, "Too slow.")})
    caught = await failure(streaming(wire.encode()))
    assert (caught.kind, caught.away) == ("deadline", False)


@pytest.mark.parametrize(
    "data", ["not json", "[]", "{}", '{"text": 1}', '{"text": "a", "index": "b"}', "null"]
)
async def test_an_event_in_another_form_is_a_failure_and_not_a_crash(data: str) -> None:
    caught = await failure(streaming(f"event: token\ndata: {data}\n\n".encode()))
    assert caught.kind in ("foreign", "broken")


async def test_closing_the_iterator_closes_the_connection() -> None:
    body = Bytes(sse(token("a", 0)).encode(), hang=True)
    functions = answering(httpx.Response(200, headers=STREAM, stream=body))
    async with aclosing(functions.reply(MESSAGES, SamplingOptions())) as stream:
        await anext(stream)
    assert body.closed


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


async def test_about_reads_the_model_and_its_absence(fake: Fake) -> None:
    functions = FunctionsClient(Settings(fake.generate_url, fake.tokenize_url))
    status = await functions.status()
    assert status.model is not None
    assert (status.state, status.model.name, status.model.max_context) == (
        "ready",
        "pibloom-demo",
        512,
    )
    fake.ready = False
    assert await functions.status() == FunctionStatus("loading", None)
    with pytest.raises(FunctionError, match="still being loaded"):
        await functions.check_ready()
    await functions.aclose()


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
        told = [line for line in lines if line.startswith(who)]
        assert told.count(f"{who}: unreachable") == 2 * len(paths)
        assert told.count(f"{who}: status 503") == len(paths)
        assert [f"{who}: {path} answers again" in told for path in paths] == [True] * len(paths)
        assert len(told) == 4 * len(paths)
    caplog.clear()
    for now in (away, away):  # noqa: B007
        await failure(functions)
    assert caplog.text.count("generate: unreachable") == 2, "a person's own request is told"
