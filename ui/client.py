"""The two functions, as the chat sees them: typed events, and one kind of failure.

Everything that can go wrong between here and a model arrives as a `Failure` whose message is a
sentence for the person in front of the chat: no status line, traceback or address.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import httpx
import httpx_sse

from ui.settings import Settings

log = logging.getLogger(__name__)

CONNECT_S = 5.0  # a connection that takes longer is not going to happen
WAKE_S = 240.0  # a first byte may wait for a pod that scales up from zero
IDLE_S = 20.0  # a stream says something every 5 s, so this is four heartbeats missed
SHORT_S = 5.0  # the rest of an error's body
MAX_ERROR_BODY = 64 * 1024


@dataclass(frozen=True)
class Loading:
    """The function is up and reads its model."""


@dataclass(frozen=True)
class Queued:
    """The request waits; position 1 is the next one to start."""

    position: int


@dataclass(frozen=True)
class Prefill:
    """The model reads the prompt: `done` of `total` tokens."""

    done: int
    total: int


@dataclass(frozen=True)
class Generating:
    """The model starts to write."""


@dataclass(frozen=True)
class Token:
    """A piece of the reply; `tokens` of it are written by now."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Done:
    """The whole reply, and what it took (tokens, tokens a second, seconds)."""

    text: str
    finish_reason: str
    seed: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_second: float
    seconds: float


Event: TypeAlias = Loading | Queued | Prefill | Generating | Token | Done
State: TypeAlias = Literal["loading", "ready", "draining", "failed"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Model:
    """The model that `generate` has loaded."""

    name: str
    architecture: str
    engine: str
    dtype: str
    parameters: int
    size_bytes: int
    max_context: int
    vocab_size: int
    layers: int
    hidden: int
    heads: int
    license: str | None


@dataclass(frozen=True)
class About:
    """What `generate` says of itself; no model until it is loaded."""

    state: State
    model: Model | None


@dataclass(frozen=True)
class Options:
    """How a reply is sampled; a seed of None lets the function choose one."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.0
    max_new_tokens: int = 256
    seed: int | None = None

    def body(self) -> dict[str, Any]:
        """Return the fields of the request, less those that ask for nothing."""
        fields = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_new_tokens,
        }
        if self.min_p:
            fields["min_p"] = self.min_p
        if self.seed is not None:
            fields["seed"] = self.seed
        return fields


# Kinds that mean "not now": the function is away, not unwilling.
AWAY = frozenset({"unreachable", "unavailable", "silent", "broken", "loading", "draining"})


class Failure(Exception):
    """A request that came to nothing; `kind` is an error type of the functions, or one of ours."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        prompt_tokens: int | None = None,
        max_context: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status
        self.retry_after = retry_after
        self.prompt_tokens, self.max_context = prompt_tokens, max_context

    @property
    def away(self) -> bool:
        """Tell whether the function may be down, and worth waiting for."""
        return self.kind in AWAY


class Functions:
    """Calls `generate` and `tokenize`; every method raises `Failure` and nothing else."""

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
        self._told: dict[tuple[str, str], set[str]] = {}  # what was logged, by function and path
        key = settings.api_key.reveal()
        self._http = httpx.AsyncClient(
            transport=transport,
            # Waiting is measured here, where a first byte and a pause have different limits.
            timeout=httpx.Timeout(None, connect=connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,  # the functions are neighbours: never through a proxy of the shell
            headers={"Authorization": f"Bearer {key}"} if key else None,
        )

    async def aclose(self) -> None:
        """Close every connection; streams that still run end with a `Failure`."""
        await self._http.aclose()

    async def reply(
        self, messages: Sequence[Mapping[str, str]], options: Options
    ) -> AsyncGenerator[Event, None]:
        """Stream the reply to a conversation; the last event is `Done`.

        Closing the iterator closes the connection, and with it the generation.
        """
        body = {"messages": list(messages), "stream": True, **options.body()}
        request = self._http.build_request(
            "POST", f"{self._generate}/", json=body, headers={"Accept": "text/event-stream"}
        )
        response = await self._send(request, "generate", self._wake_s)
        try:
            if response.status_code != 200:
                raise await self._refusal(response, "generate")
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "text/event-stream":
                raise _foreign("generate")
            response.stream = _Watched(response.stream, self._idle_s)
            async with aclosing(httpx_sse.EventSource(response).aiter_sse()) as events:
                async for raw in events:
                    event = _event(raw)
                    if event is not None:
                        yield event
                    if isinstance(event, Done):
                        return
            raise Failure("broken", "The reply broke off: the connection ended before it was done.")
        except TimeoutError:
            raise Failure("silent", "The reply broke off: the model went silent.") from None
        except httpx.HTTPError:
            raise Failure("broken", "The reply broke off: the connection was lost.") from None
        finally:
            await response.aclose()

    async def count(self, text: str) -> int:
        """Return how many tokens `text` has."""
        request = self._http.build_request("POST", f"{self._tokenize}/", json={"text": text})
        answer = await self._json(request, "tokenize")
        return _int(answer, "count", "tokenize")

    async def ready(self) -> None:
        """Return if `generate` can answer now; `Failure.kind` says why not."""
        await self._json(self._http.build_request("GET", f"{self._generate}/readyz"), "generate")

    async def about(self) -> About:
        """Return what `generate` says of itself and of its model."""
        answer = await self._json(self._http.build_request("GET", f"{self._generate}/"), "generate")
        model = answer.get("model")
        said = answer.get("state") or ("ready" if model else "loading")
        state = next((known for known in STATES if known == said), None)
        if state is None:
            raise _foreign("generate")
        return About(state, _model(model) if isinstance(model, dict) else None)

    async def warm(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Wake `generate`, and let it read what is being typed, if it has nothing else to do."""
        request = self._http.build_request(
            "POST", f"{self._generate}/warm", json={"messages": list(messages)}
        )
        await self._json(request, "generate")

    async def _send(
        self, request: httpx.Request, who: str, wait_s: float, *, by_itself: bool = False
    ) -> httpx.Response:
        # The id under which the function logs this request; ours names it when something fails.
        trace = secrets.token_hex(16)
        request.headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
        # What every page asks by itself every few seconds is told once until it is answered.
        told = self._told.setdefault((who, request.url.path), set()) if by_itself else set()
        wrong = None
        try:
            response = await self._answer(request, who, wait_s)
            if response.status_code >= 400:
                wrong = f"status {response.status_code}"
        except Failure as failure:
            wrong = failure.kind
            raise
        finally:
            if wrong is not None and wrong not in told:
                log.warning("%s: %s, request %s", who, wrong, trace)
                told.add(wrong)
        if wrong is None and told:
            log.warning("%s: %s answers again", who, request.url.path)
            told.clear()
        return response

    async def _answer(self, request: httpx.Request, who: str, wait_s: float) -> httpx.Response:
        try:
            async with asyncio.timeout(wait_s):
                return await self._http.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException):
            raise Failure("silent", f"The {who} function does not answer.") from None
        except httpx.HTTPError:
            raise Failure("unreachable", f"The {who} function cannot be reached.") from None

    async def _json(self, request: httpx.Request, who: str) -> dict[str, Any]:
        response = await self._send(request, who, self._wake_s, by_itself=True)
        try:
            if response.status_code != 200:
                raise await self._refusal(response, who)
            async with asyncio.timeout(self._wake_s):
                answer = json.loads(await response.aread())
        except TimeoutError:
            raise Failure("silent", f"The {who} function does not answer.") from None
        except httpx.HTTPError:
            raise Failure("broken", f"The {who} function broke off its answer.") from None
        except ValueError:
            raise _foreign(who) from None
        finally:
            await response.aclose()
        if not isinstance(answer, dict):
            raise _foreign(who)
        return answer

    async def _refusal(self, response: httpx.Response, who: str) -> Failure:
        body = b""
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(self._short_s):
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_ERROR_BODY:
                        break
        wait = response.headers.get("retry-after", "")
        try:
            return _failure(
                json.loads(body)["error"],
                response.status_code,
                int(wait) if wait.isascii() and wait.isdigit() else None,
            )
        except (ValueError, KeyError, TypeError):
            pass  # not ours: a proxy, or something else at this address
        if response.status_code in (502, 503, 504):
            return Failure(
                "unavailable",
                f"The {who} function is not available at the moment.",
                status=response.status_code,
            )
        return _foreign(who, response.status_code)


class _Watched(httpx.AsyncByteStream):
    """A response's bytes, of which no two may be further apart than `limit` seconds."""

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
        await self._inner.aclose()


def _event(raw: httpx_sse.ServerSentEvent) -> Event | None:
    """Return what an event says; None for one of a kind that is not known yet."""
    if raw.event not in ("status", "token", "done", "error"):
        return None
    try:
        data = json.loads(raw.data)
        if raw.event == "token":
            # A function that was deployed before this chat counts pieces alone.
            return Token(str(data["text"]), int(data.get("tokens", int(data["index"]) + 1)))
        if raw.event == "done":
            return _done(data)
        if raw.event == "error":
            error = data["error"]
            raise _failure(error, int(error["code"]), None)
        state = data["state"]
        if state == "loading":
            return Loading()
        if state == "queued":
            return Queued(int(data["position"]))
        if state == "prefill":
            return Prefill(int(data["done"]), int(data["total"]))
        return Generating() if state == "generating" else None
    except (ValueError, KeyError, TypeError):
        raise Failure("foreign", "The reply cannot be read: it is not in piBLOOM's form.") from None


def _done(data: Mapping[str, Any]) -> Done:
    usage, timings = data["usage"], data["timings"]
    milliseconds = timings["queued_ms"] + timings["prefill_ms"] + timings["decode_ms"]
    return Done(
        text=str(data["text"]),
        finish_reason=str(data["finish_reason"]),
        seed=int(data["seed"]),
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
        tokens_per_second=float(timings["tokens_per_second"] or 0.0),
        seconds=float(milliseconds) / 1000,
    )


# The functions' own words are for programs; these are for the person who waits.
SENTENCES = {
    "overloaded": "Too many people are asking at once.",
    "loading": "The model is still being loaded.",
    "draining": "The model is being restarted.",
    "unauthorized": "The chat has no key to the model's function, or a wrong one.",
    "deadline": "The reply took longer than it is allowed to.",
    "internal": "Something went wrong inside the model's function.",
    "body_too_large": "This conversation is too large to send.",
}


def _failure(error: Mapping[str, Any], status: int, retry_after: int | None) -> Failure:
    kind, said = str(error["type"]), str(error["message"])
    message = SENTENCES.get(kind, said)
    if kind == "overloaded" and retry_after:
        message += f" Try again in {retry_after} s."
    return Failure(
        kind,
        message,
        status=status,
        retry_after=retry_after,
        prompt_tokens=_optional_int(error.get("prompt_tokens")),
        max_context=_optional_int(error.get("max_context")),
    )


def _foreign(who: str, status: int | None = None) -> Failure:
    sentence = f"Something that is not piBLOOM answers in place of the {who} function."
    return Failure("foreign", sentence, status=status)


def _optional_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _int(answer: Mapping[str, Any], name: str, who: str) -> int:
    value = _optional_int(answer.get(name))
    if value is None:
        raise _foreign(who)
    return value


def _model(fields: Mapping[str, Any]) -> Model:
    def text(name: str) -> str:
        return str(fields.get(name) or "")

    def number(name: str) -> int:
        return _optional_int(fields.get(name)) or 0

    return Model(
        name=text("name"),
        architecture=text("architecture"),
        engine=text("engine"),
        dtype=text("dtype"),
        parameters=number("parameters"),
        size_bytes=number("size_bytes"),
        max_context=number("max_context"),
        vocab_size=number("vocab_size"),
        layers=number("layers"),
        hidden=number("hidden"),
        heads=number("heads"),
        license=text("license") or None,
    )
