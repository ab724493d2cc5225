"""A stream may pause, but not for long."""

import asyncio
from collections.abc import AsyncIterator

import httpx

from tests.ui.api.mocked import (
    STREAM,
    Bytes,
    answering,
    events,
    failure,
    streaming,
)
from tests.ui.fake_functions import done, sse
from ui.api import events as api


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
