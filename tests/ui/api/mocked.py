"""Clients of the functions whose answers a test decides."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from ui.api import events as api
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.sampling import SamplingOptions
from ui.settings import Settings

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
    """Return a client whose requests are answered by a function of the request."""
    return FunctionsClient(Settings(), transport=httpx.MockTransport(answer), **limits)


def answering(response: httpx.Response, **limits: float) -> FunctionsClient:
    """Return a client whose requests all get this response."""
    return mocked(lambda request: response, **limits)


def streaming(*parts: bytes, **how: Any) -> FunctionsClient:
    """Return a client whose replies have these bytes; see `Bytes` for `how`."""
    return answering(httpx.Response(200, headers=STREAM, stream=Bytes(*parts, **how)), idle_s=0.2)


async def events(
    functions: FunctionsClient, options: SamplingOptions | None = None
) -> list[api.ReplyEvent]:
    """Return all events of a reply."""
    stream = functions.reply(MESSAGES, options or SamplingOptions())
    async with asyncio.timeout(5), aclosing(stream):
        return [event async for event in stream]


async def failure(functions: FunctionsClient) -> FunctionError:
    """Return the error with which a reply fails."""
    with pytest.raises(FunctionError) as caught:
        await events(functions)
    return caught.value
