"""The generation function: a prompt in, text out, whole or as a stream of events.

    functions-framework --source functions/generate/main.py --target generate
    python -m functions generate

The second serves it as the images do, with streams that end properly at a shutdown.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from flask import Request as HttpRequest
from flask import Response, current_app
from msgspec import UNSET, Meta, UnsetType

from functions import __version__, errors, sse
from functions.http import (
    Routes,
    as_api_error,
    client_left,
    install,
    json_reply,
    probes,
    read_body,
)
from functions.service import Service
from functions.settings import Settings
from model import generation, loader, scheduler
from model.chat import ChatError

TICK = 0.25  # seconds between two looks at whether the client is still there
HEARTBEAT = 5.0  # seconds of silence after which a stream says that it lives

settings = Settings.read(os.environ)
service: Service[loader.Model] = Service(
    lambda: loader.load(
        settings.model,
        engine=settings.engine,
        bits=settings.bits,
        threads=settings.threads,
        kv_bytes=settings.kv_memory,
        dtype=settings.dtype,
        device=settings.device,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
    )
)
# Streams that wait for the model hold a thread each; probes must keep some.
waiting = threading.BoundedSemaphore(settings.max_batch + settings.max_queue)
install(current_app, settings.max_body)
current_app.extensions["pibloom"] = service


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Meta(min_length=1)]


SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")
Stop = Annotated[str, Meta(min_length=1, max_length=64)]


class GenerateBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /` takes: a prompt to continue, or messages to answer."""

    prompt: Annotated[str, Meta(min_length=1)] | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)] | None = None
    max_new_tokens: Annotated[int, Meta(ge=1, le=4096)] = 256
    # What is not given here is as the checkpoint, or else piBLOOM, has it.
    temperature: Annotated[float, Meta(ge=0, le=5)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    repetition_penalty: Annotated[float, Meta(ge=0.5, le=5)] | UnsetType = UNSET
    stop: Stop | Annotated[list[Stop], Meta(max_length=8)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stream: bool = False


class ChatBody(msgspec.Struct):
    """What `POST /chat/` takes, as the older stack did."""

    content: str = ""


def post_generate(request: HttpRequest) -> Response:
    """Generate, streaming or not."""
    body = read_body(request, GenerateBody)
    if (body.prompt is None) == (body.messages is None):
        raise errors.InvalidField("exactly one of prompt and messages is needed", param="prompt")
    deadline = time.monotonic() + settings.deadline
    if not body.stream:
        model = service.get()
        return json_reply(finish(model, body, submit(model, body, deadline), request))
    # While the model loads, the stream says so, and submits the request once it can.
    ready = None if service.state == "loading" else service.get()
    job = submit(ready, body, deadline) if ready else None
    if not ready and not waiting.acquire(blocking=False):
        raise errors.Loading("the model is still loading, and many wait for it", retry_after=2)
    response = Response(stream(request, body, ready, job, deadline), headers=sse.HEADERS)
    # A stream that was never begun cannot do this itself.
    response.call_on_close(job.cancel if job else waiting.release)
    return response


def post_chat(request: HttpRequest) -> Response:
    """Answer one message, in the older stack's shape."""
    body = read_body(request, ChatBody)
    if not body.content.strip():
        raise errors.InvalidField("content: a message is needed, but it is empty", param="content")
    asked = GenerateBody(messages=[Message("user", body.content)])
    model = service.get()
    job = submit(model, asked, time.monotonic() + settings.deadline)
    return json_reply({"data": finish(model, asked, job, request)["text"]})


def get_root(request: HttpRequest) -> Response:
    """Say what is served."""
    model = service.peek()
    info = msgspec.to_builtins(model.info) if model else None
    return json_reply(
        {"service": "generate", "version": __version__, "state": service.state, "model": info}
    )


def submit(model: loader.Model, body: GenerateBody, deadline: float) -> generation.Generation:
    """Queue a request; raises the `ApiError` that says why it cannot be."""
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    given = {name: value for name in SAMPLING if (value := getattr(body, name)) is not UNSET}
    sampling = replace(model.sampling, seed=body.seed, **given)
    try:
        model.scheduler.check_room()  # a request that is refused should cost nothing
        if body.messages is not None:
            text = model.chat.render([msgspec.to_builtins(message) for message in body.messages])
            stop += model.chat.stop
        else:
            text = body.prompt or ""
        return model.scheduler.submit(
            generation.Request(
                tuple(model.tokenizer.ids(text)), body.max_new_tokens, sampling, stop, deadline
            )
        )
    except ChatError as error:
        raise errors.InvalidField(str(error), param="messages") from None
    except scheduler.ContextFull as error:
        raise errors.ContextFull(
            str(error),
            param="prompt" if body.messages is None else "messages",
            prompt_tokens=error.prompt_tokens,
            max_context=error.max_context,
        ) from None
    except scheduler.Overloaded as error:
        raise errors.Overloaded(str(error), retry_after=error.retry_after) from None
    except scheduler.Draining:
        raise errors.Draining("the server is shutting down", retry_after=5) from None


def finish(
    model: loader.Model, body: GenerateBody, job: generation.Generation, request: HttpRequest
) -> dict[str, object]:
    """Wait for the whole reply; cancels when the client leaves."""
    try:
        for event in job.events(TICK):
            match event:
                case generation.Done():
                    return reply(model, body, event)
                case generation.Failed():
                    raise failure(event)
                case None:
                    check_deadline(job)
            if client_left(request.environ):
                raise errors.ClientGone("the client left")
        raise AssertionError("a generation ended without its last event")
    finally:
        job.cancel()


def stream(
    request: HttpRequest,
    body: GenerateBody,
    model: loader.Model | None,
    job: generation.Generation | None,
    deadline: float,
) -> Iterator[bytes]:
    """Yield the events of a reply: exactly one `done` or `error` at the end, whatever happens."""
    try:
        yield sse.OPENING
        if model is None or job is None:
            yield sse.event("status", {"state": "loading"})
            spoken = time.monotonic()
            while not service.wait(TICK):
                if client_left(request.environ):
                    return
                if time.monotonic() > deadline:
                    raise errors.DeadlineExceeded("the model took too long to load")
                if time.monotonic() - spoken >= HEARTBEAT:
                    spoken = time.monotonic()
                    yield sse.HEARTBEAT
            model = service.get()
            job = submit(model, body, deadline)
        yield from events(model, request, body, job)
    except Exception as error:
        yield sse.event("error", as_api_error(error).body())
    finally:
        if job is not None:
            job.cancel()


def events(
    model: loader.Model, request: HttpRequest, body: GenerateBody, job: generation.Generation
) -> Iterator[bytes]:
    """Yield a running generation's events; stops without a word when nobody listens."""
    count, shown, spoken = 0, 0, time.monotonic()
    for event in job.events(TICK):
        if client_left(request.environ):
            return
        line = b""
        match event:
            case None:
                check_deadline(job)
                if time.monotonic() - spoken >= HEARTBEAT:
                    line = sse.HEARTBEAT
            case generation.Queued(position):
                line = sse.event("status", {"state": "queued", "position": position})
            case generation.Prefill(done, total):
                line = sse.event("status", {"state": "prefill", "done": done, "total": total})
            case generation.Token(_, text):
                if not count:
                    line = sse.event("status", {"state": "generating"})
                count += 1
                if not shown and body.messages is not None:
                    text = text.lstrip()
                if text:
                    line += sse.event("token", {"text": text, "index": shown})
                    shown += 1
            case generation.Done():
                line = sse.event("done", reply(model, body, event))
            case generation.Failed():
                raise failure(event)
        if line:
            spoken = time.monotonic()
            yield line


def check_ready() -> None:
    """Raise the error that says why no request would be answered now."""
    if not service.get().scheduler.healthy:
        raise errors.ApiError("the engine has ended")


def check_deadline(job: generation.Generation) -> None:
    """Raise at the deadline even when the engine hangs, and so cannot end the generation itself."""
    if job.request.deadline is not None and time.monotonic() > job.request.deadline:
        raise errors.DeadlineExceeded("the request took longer than its deadline allows")


def reply(model: loader.Model, body: GenerateBody, done: generation.Done) -> dict[str, object]:
    """Return what a finished generation is answered with."""
    seconds = done.decode_s
    # The first token comes out of prefill; decoding took the time of the others.
    speed = (done.completion_tokens - 1) / seconds if seconds > 0 else 0.0
    return {
        "text": done.text.lstrip() if body.messages is not None else done.text,
        "finish_reason": done.finish_reason,
        "model": model.info.name,
        "seed": done.seed,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
        },
        "timings": {
            "queued_ms": round(done.queued_s * 1000, 1),
            "prefill_ms": round(done.prefill_s * 1000, 1),
            "decode_ms": round(done.decode_s * 1000, 1),
            "tokens_per_second": round(speed, 1),
        },
    }


def failure(failed: generation.Failed) -> errors.ApiError:
    """Return the error that a failed generation is answered with."""
    match failed.kind:
        case "deadline":
            return errors.DeadlineExceeded(failed.message)
        case "draining":
            return errors.Draining(failed.message, retry_after=5)
        case "cancelled":
            return errors.ClientGone(failed.message)
        case _:
            return errors.ApiError("the model failed to generate")


routes = Routes(
    ("GET", "/", get_root),
    ("POST", "/", post_generate),
    ("POST", "/chat/", post_chat),
    *probes(lambda: service.state, check_ready),
)


def generate(request: HttpRequest) -> Response:
    """Answer one HTTP request; the function's entry point."""
    service.start()
    return routes(request)
