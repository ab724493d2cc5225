"""The generation function: a prompt in, text out, whole or as a stream of events.

    functions-framework --source functions/generate/main.py --target generate
    python -m functions generate

The second serves it as the images do, with streams that end properly at a shutdown.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from flask import Request as HttpRequest
from flask import Response, current_app
from msgspec import Meta

from functions import __version__, drawing, errors, openapi, sse
from functions.generate import ollama, openai, responses, submission
from functions.generate.figures import Figures
from functions.http.body import read_body
from functions.http.clients import client_left
from functions.http.middleware import install
from functions.http.probes import metrics_route, probes
from functions.http.replies import as_api_error, json_reply
from functions.http.routing import Routes
from functions.metrics import Registry
from functions.openapi import Operation
from functions.service import Service
from functions.settings import Settings
from model import load
from model.load import LoadedModel
from model.serving import events
from model.serving.request import GenerationRequest

settings = Settings.read(os.environ)
metrics = Registry()


def load_model() -> LoadedModel:
    """Load the model, and count what it does from then on."""
    model = load.load(settings.model, **settings.loading)
    model.scheduler.observer = figures
    return model


service = Service(load_model)
figures = Figures(metrics, service)
# Streams that wait for the model hold a thread each; probes must keep some.
waiting = threading.BoundedSemaphore(settings.limits.most_at_once)
install(current_app, settings, metrics)
current_app.extensions["pibloom"] = service


NEW_TOKENS = 256  # of a reply to a request that names no number


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation; only what the user says must not be empty."""

    role: Literal["system", "user", "assistant"]
    content: str | None


SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


class GenerateBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /` takes: a prompt to continue, or messages to answer."""

    prompt: openai.Text | None = None
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=1000)] | None = None
    max_new_tokens: drawing.NewTokens | None = None
    # What is not given here is as the checkpoint, or else piBLOOM, has it.
    temperature: drawing.Temperature | None = None
    top_k: drawing.TopK | None = None
    top_p: drawing.TopP | None = None
    min_p: drawing.MinP | None = None
    repetition_penalty: drawing.RepetitionPenalty | None = None
    stop: drawing.Stop | drawing.Stops | None = None
    seed: drawing.Seed | None = None
    stream: bool | None = None


class ChatBody(msgspec.Struct):
    """What `POST /chat/` takes, as the older stack did: a number is its text."""

    content: str | int | float | bool


class WarmBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /warm` takes: nothing, or what is being typed."""

    prompt: openai.Text | None = None
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=1000)] | None = None


def post_generate(request: HttpRequest) -> Response:
    """Generate, streaming or not."""
    body = read_body(request, GenerateBody)
    if (body.prompt is None) == (body.messages is None):
        raise errors.InvalidField("exactly one of prompt and messages is needed", param="prompt")
    _check_turns(body.messages)
    deadline = submission.deadline_of(request, settings.deadline)
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


def _check_turns(turns: list[Turn] | None) -> None:
    for place, turn in enumerate(turns or ()):
        if turn.role == "user" and not turn.content:
            name = f"messages[{place}].content"
            raise errors.InvalidField(f"{name}: what the user says is empty", param=name)


def post_chat(request: HttpRequest) -> Response:
    """Answer one message, in the older stack's shape."""
    body = read_body(request, ChatBody, untyped=True)
    content = str(body.content)
    if not content:
        raise errors.InvalidField("content: a message is needed, but it is empty", param="content")
    asked = GenerateBody(messages=[Turn("user", content)])
    model = service.get()
    job = submit(model, asked, submission.deadline_of(request, settings.deadline))
    return json_reply({"data": finish(model, asked, job, request)["text"]})


def post_warm(request: HttpRequest) -> Response:
    """Wake up; and, while nothing else is asked for, read what is being typed."""
    body = read_body(request, WarmBody) if request.get_data() else WarmBody()
    if body.prompt is not None and body.messages is not None:
        raise errors.InvalidField("only one of prompt and messages is taken", param="prompt")
    _check_turns(body.messages)
    model = service.peek()
    answer: dict[str, object] = {"state": service.state, "prompt_tokens": 0, "cached_tokens": 0}
    if model is None or not (body.prompt or body.messages) or not model.scheduler.idle:
        return json_reply(answer)
    asked = GenerateBody(body.prompt, body.messages, max_new_tokens=0)
    deadline = submission.deadline_of(request, 30)
    try:
        job = submit(model, asked, deadline, background=True)
        usage = finish(model, asked, job, request)["usage"]
    except (errors.ClientGone, errors.Overloaded):
        return json_reply(answer)  # somebody asked for something, and goes first
    assert isinstance(usage, dict)
    return json_reply(answer | {name: usage[name] for name in ("prompt_tokens", "cached_tokens")})


def get_root(request: HttpRequest) -> Response:
    """Say what is served."""
    model = service.peek()
    info = msgspec.to_builtins(model.info) if model else None
    return json_reply(
        {"service": "generate", "version": __version__, "state": service.state, "model": info}
    )


def submit(
    model: LoadedModel,
    body: GenerateBody,
    deadline: float,
    *,
    background: bool = False,
    request: HttpRequest | None = None,
) -> events.Generation:
    """Queue a request; raises the `ApiError` that says why it cannot be."""
    sampling = drawing.drawn(model.sampling, {name: getattr(body, name) for name in SAMPLING})
    limit = NEW_TOKENS if body.max_new_tokens is None else body.max_new_tokens

    def make() -> list[GenerationRequest]:
        stop = openai.stops_of(body.stop)
        if body.messages is not None:
            text = model.chat.render(
                [{"role": turn.role, "content": turn.content or ""} for turn in body.messages]
            )
            stop += model.chat.stop
        else:
            text = body.prompt or ""
        ids = tuple(model.tokenizer.ids(text, add_special_tokens=body.messages is None))
        return [GenerationRequest(ids, limit, sampling, stop, deadline)]

    param = "prompt" if body.messages is None else "messages"
    return submission.submit(model, make, param, background=background, request=request)[0]


def finish(
    model: LoadedModel, body: GenerateBody, job: events.Generation, request: HttpRequest
) -> dict[str, object]:
    """Wait for the whole reply; cancels when the client leaves."""
    try:
        for found in submission.follow([job], request):
            if found is not None and isinstance(found[1], events.Done):
                return reply(model, body, found[1])
        raise AssertionError("a generation ended without its last event")
    finally:
        job.cancel()


def stream(
    request: HttpRequest,
    body: GenerateBody,
    model: LoadedModel | None,
    job: events.Generation | None,
    deadline: float,
) -> Iterator[bytes]:
    """Yield the events of a reply: exactly one `done` or `error` at the end, whatever happens."""
    try:
        yield sse.OPENING
        if model is None or job is None:
            yield sse.event("status", {"state": "loading"})
            spoken = time.monotonic()
            while not service.wait(submission.TICK):
                if client_left(request.environ):
                    return
                if time.monotonic() > deadline:
                    raise errors.DeadlineExceeded("the model took too long to load")
                if time.monotonic() - spoken >= submission.HEARTBEAT:
                    spoken = time.monotonic()
                    yield sse.HEARTBEAT
            model = service.get()
            job = submit(model, body, deadline, request=request)
        yield from lines(model, request, body, job)
    except errors.ClientGone:
        return
    except Exception as error:
        yield sse.event("error", as_api_error(error).body())
    finally:
        if job is not None:
            job.cancel()


def lines(
    model: LoadedModel, request: HttpRequest, body: GenerateBody, job: events.Generation
) -> Iterator[bytes]:
    """Yield a running generation's events."""
    count, shown, spoken = 0, 0, time.monotonic()
    for found in submission.follow([job], request):
        line = b""
        match found and found[1]:
            case None:
                if time.monotonic() - spoken >= submission.HEARTBEAT:
                    line = sse.HEARTBEAT
            case events.Queued(position):
                line = sse.event("status", {"state": "queued", "position": position})
            case events.Prefill(done, total):
                line = sse.event("status", {"state": "prefill", "done": done, "total": total})
            case events.Token(_, text):
                if not count:
                    line = sse.event("status", {"state": "generating"})
                count += 1
                if not shown and body.messages is not None:
                    text = text.lstrip()
                if text:
                    line += sse.event("token", {"text": text, "index": shown, "tokens": count})
                    shown += 1
            case events.Done() as last:
                line = sse.event("done", reply(model, body, last))
        if line:
            spoken = time.monotonic()
            yield line


def check_ready() -> None:
    """Raise the error that says why no request would be answered now."""
    if not service.get().scheduler.healthy:
        raise errors.ApiError("the engine has ended, or hangs")


def is_alive() -> bool:
    """Whether the engine can still be hoped to come back."""
    model = service.peek()
    return model is None or service.state == "draining" or model.scheduler.healthy


def reply(model: LoadedModel, body: GenerateBody, done: events.Done) -> dict[str, object]:
    """Return what a finished generation is answered with."""
    return {
        "text": done.text.lstrip() if body.messages is not None else done.text,
        "finish_reason": done.finish_reason,
        "model": model.info.name,
        "seed": done.seed,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
            "cached_tokens": done.cached_tokens,
        },
        "timings": submission.timings(done),
    }


def get_document(request: HttpRequest) -> Response:
    """Describe every route."""
    return json_reply(openapi.document("generate", operations()))


def operations() -> Sequence[Operation]:
    """Return what the document tells of each route."""
    from functions.generate import answers  # many types, which nothing else needs

    return (
        Operation(
            "POST",
            "/",
            "Generate",
            GenerateBody,
            answers.Generated,
            generates=True,
            streams=openapi.EVENTS,
        ),
        Operation(
            "POST", "/chat/", "Answer one message", ChatBody, answers.OlderAnswer, generates=True
        ),
        Operation(
            "POST", "/warm", "Wake up", WarmBody, answers.Warmed, generates=True, optional_body=True
        ),
        Operation(
            "POST",
            "/v1/completions",
            "Continue prompts, as OpenAI does",
            openai.CompletionBody,
            answers.Completion,
            generates=True,
            streams=openapi.EVENTS,
        ),
        Operation(
            "POST",
            "/v1/chat/completions",
            "Answer a conversation, as OpenAI does",
            openai.ChatCompletionBody,
            answers.ChatCompletion,
            generates=True,
            streams=openapi.EVENTS,
        ),
        Operation(
            "POST",
            "/v1/responses",
            "Answer a conversation, as OpenAI's newer route does",
            responses.ResponseBody,
            answers.ModelResponse,
            generates=True,
            streams=openapi.EVENTS,
        ),
        Operation(
            "POST",
            "/api/chat",
            "Answer a conversation, as Ollama does",
            ollama.OllamaChatBody,
            answers.OllamaChat,
            generates=True,
            streams=openapi.LINES,
        ),
        Operation(
            "POST",
            "/api/generate",
            "Answer a prompt, as Ollama does",
            ollama.OllamaGenerateBody,
            answers.OllamaGenerated,
            generates=True,
            streams=openapi.LINES,
        ),
        Operation(
            "POST",
            "/api/show",
            "The one model, as Ollama does",
            ollama.ShowBody,
            answers.OllamaShown,
            generates=True,
        ),
        Operation(
            "GET",
            "/api/tags",
            "The one model, as Ollama does",
            answer=answers.OllamaModels,
            may_wait=True,
        ),
        Operation(
            "GET", "/api/ps", "The one model, once it is loaded", answer=answers.OllamaModels
        ),
        Operation(
            "GET",
            "/api/version",
            "The release of Ollama that /api follows",
            answer=answers.OllamaVersion,
        ),
        Operation("GET", "/v1/models", "The one model", answer=answers.ModelList, may_wait=True),
        Operation(
            "GET",
            "/v1/models/{name}",
            "The one model",
            answer=answers.ModelCard,
            may_wait=True,
            missing=True,
        ),
        Operation("GET", "/", "What is served", answer=answers.Root),
        *openapi.COMMON,
    )


api = openai.Api(service.get, settings.deadline)
newer = responses.Responses(service.get, settings.deadline)
ollamas = ollama.Api(service.get, service.peek, settings.deadline)
routes = Routes(
    ("GET", "/", get_root),
    ("POST", "/", post_generate),
    ("POST", "/chat/", post_chat),
    ("POST", "/warm", post_warm),
    ("POST", "/v1/completions", api.completions),
    ("POST", "/v1/chat/completions", api.chat),
    ("POST", "/v1/responses", newer.create),
    ("GET", "/v1/responses/<name>", newer.stored),
    ("DELETE", "/v1/responses/<name>", newer.stored),
    ("GET", "/v1/models", api.models),
    ("GET", "/v1/models/<path:name>", api.model),
    ("POST", "/api/chat", ollamas.chat),
    ("POST", "/api/generate", ollamas.generate),
    ("POST", "/api/show", ollamas.show),
    ("GET", "/api/tags", ollamas.tags),
    ("GET", "/api/ps", ollamas.ps),
    ("GET", "/api/version", ollamas.version),
    *probes(lambda: service.state, check_ready, is_alive),
    metrics_route(metrics),
    ("GET", "/openapi.json", get_document),
)


def generate(request: HttpRequest) -> Response:
    """Answer one HTTP request; the function's entry point."""
    service.start()
    return routes(request)
