"""A limit on how long a response may pause between two parts."""

import asyncio
from collections.abc import AsyncIterator

import httpx


class PauseLimitedStream(httpx.AsyncByteStream):
    """A response's bytes; raises TimeoutError when none come for `limit` seconds."""

    def __init__(self, inner: object, limit: float) -> None:
        assert isinstance(inner, httpx.AsyncByteStream)
        self._inner, self._limit = inner, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._inner)
        while True:
            async with asyncio.timeout(self._limit):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()
