"""Both functions without a model: they stream canned replies slowly, and fail on demand.

By hand: python -m tests.ui.fake_functions --port 8081 --tokenize-port 8082
"""

import argparse
import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

MODEL = {
    "name": "pibloom-demo",
    "architecture": "BloomForCausalLM",
    "engine": "reference",
    "dtype": "float32",
    "parameters": 5_800_000,
    "size_bytes": 23_200_000,
    "max_context": 512,
    "vocab_size": 8192,
    "layers": 6,
    "hidden": 256,
    "heads": 8,
    "license": "Apache-2.0",
}

STORY = (
    "Once upon a time a small fox lived at the edge of a quiet forest. Every evening she sat on"
    " the hill and counted the stars. One night a star fell into the river, and the fox ran to"
    " help it home."
)
CODE = (
    "A loop adds the numbers:\n\n```python\ndef total(numbers):\n    result = 0\n"
    "    for number in numbers:\n        result += number  # one by one\n    return result\n```\n\n"
    "- `total([1, 2])` is **3**\n- `total([])` is **0**\n\n| numbers | total |\n|---|---|\n"
    "| 1, 2 | 3 |\n"
)
ARABIC = "مرحبا! أنا بخير، شكرا لك. أنا **piBLOOM**، نموذج لغوي صغير. كيف يمكنني مساعدتك اليوم؟"
CHINESE = "你好！我是 piBLOOM，一个很小的语言模型。我可以和你聊天，也可以给你讲一个小故事。"
ATTACK = (
    "<script>window.hacked = 1</script>\n\n<img src=x onerror='window.hacked = 1'>"
    " [click](javascript:window.hacked=1) ![pixel](http://203.0.113.1/spy.png)"
    ' <a href="javascript:window.hacked=1">a</a> ${window.hacked=1} `</code><svg onload=1>`\n\n'
    '```html"><script>window.hacked = 1</script>\n<b>bold</b>\n```\n\nTHE END'
)


def canned(question: str) -> str:
    """Return the reply to a question."""
    if any("\u0600" <= character <= "\u06ff" for character in question):
        return ARABIC
    if any("\u4e00" <= character <= "\u9fff" for character in question):
        return CHINESE
    for word, reply in (("code", CODE), ("attack", ATTACK), ("Hello", "Hello! I am piBLOOM.")):
        if word.lower() in question.lower():
            return reply
    return STORY


def pieces(text: str) -> list[str]:
    """Cut a text into what tokens would give: about a word each."""
    words = text.split(" ")
    cut = [word if index == 0 else " " + word for index, word in enumerate(words)]
    return [part for word in cut for part in _short(word)]


def _short(word: str) -> list[str]:
    return [word[start : start + 8] for start in range(0, len(word), 8)]


Step = dict[str, Any] | str | float | asyncio.Event
"""An event's data by its name, raw text, a pause in seconds, or something to wait for."""


@dataclass
class Answer:
    """What to do with one request: refuse it, or stream these steps."""

    steps: list[Step] = field(default_factory=list)
    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fake:
    """The behaviour of both functions; a test changes it while they run."""

    delay: float = 0.0  # before each token
    before: float = 0.0  # before the first one
    count_delay: float = 0.0
    ready: bool = True
    answers: list[Answer] = field(default_factory=list)  # for the next requests, in order
    requests: list[dict[str, Any]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    warmed: list[list[dict[str, str]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request to generate
    running: int = 0
    left: int = 0  # how many clients went before their stream was done
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    generate_url: str = ""
    tokenize_url: str = ""
    max_context: int = 512

    async def wait_for(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until something is true of the requests so far."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(true)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the generate function."""
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        match scope["method"], scope["path"]:
            case "GET", "/":
                state = "ready" if self.ready else "loading"
                model = MODEL | {"max_context": self.max_context} if self.ready else None
                await _json(
                    send, {"service": "generate", "version": "0", "model": model, "state": state}
                )
            case "GET", "/readyz" if not self.ready:
                await _json(
                    send,
                    error("loading", 503, "The model is being loaded."),
                    503,
                    {"retry-after": "1"},
                )
            case "GET", "/readyz":
                await _json(send, {"status": "ready"})
            case "POST", "/warm":
                self.warmed.append((await _body(receive))["messages"])
                await self._note()
                await _json(send, {"state": "ready", "prompt_tokens": 5, "cached_tokens": 0})
            case "POST", "/":
                await self._post(await _body(receive), receive, send)
            case _:
                await _json(send, error("not_found", 404, "Not found."), 404)

    async def tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the tokenize function: a token a word."""
        if scope["method"] != "POST":
            await _json(send, {"status": "ok"})
            return
        text = (await _body(receive))["text"]
        self.counted.append(text)
        await self._note()
        await asyncio.sleep(self.count_delay)
        await _json(send, {"ids": [], "pieces": [], "offsets": [], "count": len(text.split())})

    async def _post(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        self.requests.append(body)
        await self._note()
        answer = self.answers.pop(0) if self.answers else self._usual(body)
        if answer.status != 200 or answer.body:
            await _text(send, answer.body, answer.status, answer.headers)
            return
        self.running += 1
        streaming = asyncio.create_task(self._stream(answer, send))
        leaving = asyncio.create_task(_disconnected(receive))
        done, _ = await asyncio.wait((streaming, leaving), return_when=asyncio.FIRST_COMPLETED)
        self.running -= 1
        if streaming not in done:
            streaming.cancel()
            self.left += 1
        leaving.cancel()
        await self._note()

    async def _stream(self, answer: Answer, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _chunk(send, ": stream\n\n")
        for step in answer.steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, str):
                await _chunk(send, step)
            else:
                await _chunk(send, sse(step))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _usual(self, body: dict[str, Any]) -> Answer:
        prompt = sum(len(message["content"].split()) + 2 for message in body["messages"])
        if prompt >= self.max_context:
            return refusal(
                "context_full",
                422,
                f"The prompt has {prompt} tokens.",
                prompt_tokens=prompt,
                max_context=self.max_context,
            )
        steps: list[Step] = []
        if self.before:
            for state in (
                {"state": "loading"},
                {"state": "queued", "position": 2},
                {"state": "prefill", "done": 16, "total": 48},
            ):
                steps += [{"status": state}, self.before]
        steps.append({"status": {"state": "generating"}})
        text = canned(body["messages"][-1]["content"])
        cut = pieces(text)[: body.get("max_new_tokens", 256)]
        for index, piece in enumerate(cut):
            steps += [self.delay, token(piece, index)]
        steps.append(done("".join(cut), prompt, len(cut), seed=body.get("seed", 4711)))
        return Answer(steps)


def token(text: str, index: int) -> dict[str, Any]:
    """Return a token event: piece number `index`, of a token each."""
    return {"token": {"text": text, "index": index, "tokens": index + 1}}


def done(text: str, prompt: int, tokens: int, seed: int = 4711) -> dict[str, Any]:
    """Return the terminal event of a reply that went well."""
    return {
        "done": {
            "text": text,
            "finish_reason": "stop",
            "model": MODEL["name"],
            "seed": seed,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": tokens,
                "total_tokens": prompt + tokens,
            },
            "timings": {
                "queued_ms": 0.0,
                "prefill_ms": 20.0,
                "decode_ms": 1000.0,
                "tokens_per_second": 12.34,
            },
        }
    }


def said(text: str) -> Answer:
    """Return an answer that says a text at once, a word at a time."""
    cut = pieces(text)
    steps: list[Step] = [token(piece, index) for index, piece in enumerate(cut)]
    return Answer([*steps, done(text, 5, len(cut))])


def halted(text: str, gate: asyncio.Event | None = None) -> Answer:
    """Return an answer that says a text, then waits, for ever or until the gate opens."""
    steps: list[Step] = [token(piece, index) for index, piece in enumerate(pieces(text))]
    return Answer([*steps, gate or asyncio.Event(), done(text, 5, len(steps))])


def error(kind: str, code: int, message: str, **more: Any) -> dict[str, Any]:
    """Return an error in the functions' shape."""
    return {"error": {"code": code, "type": kind, "message": message, "param": None, **more}}


def refusal(kind: str, code: int, message: str = "No.", **more: Any) -> Answer:
    """Return an answer that is an error."""
    headers = {"content-type": "application/json"}
    if code in (429, 503):
        headers["retry-after"] = "3"
    return Answer(status=code, body=json.dumps(error(kind, code, message, **more)), headers=headers)


def sse(step: dict[str, Any]) -> str:
    """Return an event as it goes over the wire."""
    ((name, data),) = step.items()
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


@contextlib.asynccontextmanager
async def serve(app: Any, port: int = 0) -> AsyncIterator[int]:
    """Serve an app on the loopback interface; gives its port, and cuts every stream at the end."""
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0, ws="none"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(64)
        task = asyncio.create_task(server._serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task


def _asgi(handler: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(scope, receive, send)

    return app


@contextlib.asynccontextmanager
async def both(fake: Fake, port: int = 0, tokenize_port: int = 0) -> AsyncIterator[Fake]:
    """Serve both functions; their addresses are then in `fake`."""
    async with (
        serve(_asgi(fake.generate), port) as first,
        serve(_asgi(fake.tokenize), tokenize_port) as second,
    ):
        fake.generate_url = f"http://127.0.0.1:{first}"
        fake.tokenize_url = f"http://127.0.0.1:{second}"
        yield fake


async def _body(receive: Receive) -> dict[str, Any]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            parsed: dict[str, Any] = json.loads(body)
            return parsed


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _chunk(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _text(send: Send, body: str, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body.encode()})


async def _json(
    send: Send, body: object, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    kind = {"content-type": "application/json", **(headers or {})}
    await _text(send, json.dumps(body), status, kind)


async def _main(port: int, tokenize_port: int, delay: float, before: float) -> None:
    fake = Fake(delay=delay, before=before)
    async with both(fake, port, tokenize_port):
        print(f"generate {fake.generate_url} tokenize {fake.tokenize_url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--tokenize-port", type=int, default=8082)
    parser.add_argument("--delay", type=float, default=0.08, help="seconds before each token")
    parser.add_argument("--before", type=float, default=0.5, help="seconds in each earlier state")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(given.port, given.tokenize_port, given.delay, given.before))
