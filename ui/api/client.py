"""The HTTP client of the functions `generate` and `tokenize`.

Everything that can go wrong on the way to a model arrives as a `FunctionError`.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import httpx_sse

from ui.api import sentences
from ui.api.errors import FunctionError, foreign, optional_int, parse_error
from ui.api.events import DoneEvent, ReplyEvent, parse_event
from ui.api.request_log import RequestLog
from ui.api.sampling import SamplingOptions
from ui.api.status import FunctionStatus, parse_status
from ui.api.streams import PauseLimitedStream
from ui.settings import Settings

CONNECT_S = 5.0  # to open a connection
WAKE_S = 240.0  # until the first byte of an answer: a pod may have to scale up from zero
IDLE_S = 20.0  # between two parts of a stream: a heartbeat comes every 5 s, so four were missed
SHORT_S = 5.0  # to read the rest of an error's body
MAX_ERROR_BODY = 64 * 1024  # bytes


class FunctionsClient:
    """Calls `generate` and `tokenize`; every method raises `FunctionError` and nothing else.

    The keyword arguments are limits in seconds, see the constants above.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        connect_s: float = CONNECT_S,
        wake_s: float = WAKE_S,
        idle_s: float = IDLE_S,
        short_s: float = SHORT_S,
    ) -> None:
        self._generate, self._tokenize = settings.generate_url, settings.tokenize_url
        self._wake_s, self._idle_s, self._short_s = wake_s, idle_s, short_s
        self._log = RequestLog()
        key = settings.api_key.reveal()
        self._http = httpx.AsyncClient(
            transport=transport,
            # The waits are limited below: the first byte and a pause have different limits.
            timeout=httpx.Timeout(None, connect=connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,  # the functions are neighbours: never through a proxy of the shell
            headers={"Authorization": f"Bearer {key}"} if key else None,
        )

    async def aclose(self) -> None:
        """Close every connection; streams that still run end with a `FunctionError`."""
        await self._http.aclose()

    async def reply(
        self, messages: Sequence[Mapping[str, str]], options: SamplingOptions
    ) -> AsyncGenerator[ReplyEvent, None]:
        """Stream the reply to a conversation; the last event is a `DoneEvent`.

        Closing the iterator closes the connection, and with it the generation.
        """
        body = {"messages": list(messages), "stream": True, **options.fields()}
        request = self._http.build_request(
            "POST", f"{self._generate}/", json=body, headers={"Accept": "text/event-stream"}
        )
        response = await self._send(request, "generate")
        try:
            if response.status_code != 200:
                raise await self._refusal(response, "generate")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip()
            if media_type != "text/event-stream":
                raise foreign("generate")
            response.stream = PauseLimitedStream(response.stream, self._idle_s)
            async with aclosing(httpx_sse.EventSource(response).aiter_sse()) as events:
                async for raw in events:
                    event = parse_event(raw)
                    if event is not None:
                        yield event
                    if isinstance(event, DoneEvent):
                        return
            raise FunctionError("broken", sentences.STREAM_ENDED)
        except TimeoutError:
            raise FunctionError("silent", sentences.STREAM_SILENT) from None
        except httpx.HTTPError:
            raise FunctionError("broken", sentences.STREAM_LOST) from None
        finally:
            await response.aclose()

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` has."""
        request = self._http.build_request("POST", f"{self._tokenize}/", json={"text": text})
        answer = await self._json(request, "tokenize")
        count = optional_int(answer.get("count"))
        if count is None:
            raise foreign("tokenize")
        return count

    async def check_ready(self) -> None:
        """Return if `generate` can answer now; the error's `kind` says why not."""
        await self._json(self._http.build_request("GET", f"{self._generate}/readyz"), "generate")

    async def status(self) -> FunctionStatus:
        """Return the state of `generate`, and its model."""
        request = self._http.build_request("GET", f"{self._generate}/")
        return parse_status(await self._json(request, "generate"))

    async def warm(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Wake `generate`, and let it read what is being typed if it has nothing else to do."""
        request = self._http.build_request(
            "POST", f"{self._generate}/warm", json={"messages": list(messages)}
        )
        await self._json(request, "generate")

    async def _send(
        self, request: httpx.Request, function: str, *, repeated: bool = False
    ) -> httpx.Response:
        """Return a response whose body is not read yet; a failure is logged with an id.

        `repeated` says that pages make this request by themselves, again and again.
        """
        # The function logs this request under the same id.
        trace = secrets.token_hex(16)
        request.headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
        path = request.url.path
        try:
            response = await self._first_byte(request, function)
        except FunctionError as error:
            self._log.failed(function, path, error.kind, trace, repeated=repeated)
            raise
        if response.status_code >= 400:
            kind = f"status {response.status_code}"
            self._log.failed(function, path, kind, trace, repeated=repeated)
        elif repeated:
            self._log.answered(function, path)
        return response

    async def _first_byte(self, request: httpx.Request, function: str) -> httpx.Response:
        try:
            async with asyncio.timeout(self._wake_s):
                return await self._http.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException):
            raise FunctionError("silent", sentences.silent(function)) from None
        except httpx.HTTPError:
            raise FunctionError("unreachable", sentences.unreachable(function)) from None

    async def _json(self, request: httpx.Request, function: str) -> dict[str, Any]:
        response = await self._send(request, function, repeated=True)
        try:
            if response.status_code != 200:
                raise await self._refusal(response, function)
            async with asyncio.timeout(self._wake_s):
                answer = json.loads(await response.aread())
        except TimeoutError:
            raise FunctionError("silent", sentences.silent(function)) from None
        except httpx.HTTPError:
            raise FunctionError("broken", sentences.broken(function)) from None
        except ValueError:
            raise foreign(function) from None
        finally:
            await response.aclose()
        if not isinstance(answer, dict):
            raise foreign(function)
        return answer

    async def _refusal(self, response: httpx.Response, function: str) -> FunctionError:
        """Return the error for a response whose status is not 200."""
        body = b""
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(self._short_s):
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_ERROR_BODY:
                        break
        wait = response.headers.get("retry-after", "")
        retry_after = int(wait) if wait.isascii() and wait.isdigit() else None
        status = response.status_code
        try:
            return parse_error(json.loads(body)["error"], status, retry_after)
        except (ValueError, KeyError, TypeError):
            pass  # not piBLOOM's: of a proxy, or of something else at this address
        if status in (502, 503, 504):
            return FunctionError("unavailable", sentences.unavailable(function), status=status)
        return foreign(function, status)
