"""piBLOOM's own routes: `/` generates, `/chat/` is the older stack's, `/warm` wakes up."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Request as HttpRequest
from flask import Response

from functions import errors, sse, version
from functions.generate import streams, submission
from functions.generate.native.replies import generated, stream
from functions.generate.native.schemas import (
    ChatAnswer,
    ChatBody,
    GenerateBody,
    Generated,
    LoadingStatus,
    Message,
    Root,
    WarmBody,
    Warmed,
)
from functions.generate.sampling import sampling_params, stop_strings
from functions.generate.written import WrittenReply
from functions.http.body import read_body
from functions.http.clients import client_left
from functions.http.replies import json_reply
from functions.service import Service
from model.load import LoadedModel
from model.serving import events
from model.serving.request import GenerationRequest

NEW_TOKENS = 256  # of a reply to a request that names no limit
WARM_SECONDS = 30.0  # that reading a prompt ahead may take


@dataclass(frozen=True)
class _Submitted:
    """A request that the scheduler has, and what is written of its reply."""

    model: LoadedModel
    generation: events.Generation
    reply: WrittenReply


class NativeRoutes:
    """The routes, for the model that `service` holds; `longest` is in seconds.

    At most `most_waiting` streams wait for the model to load: each holds a thread, and the probes
    need some, too.
    """

    def __init__(self, service: Service[LoadedModel], longest: float, most_waiting: int) -> None:
        self._service, self._longest = service, longest
        self._waiting = threading.BoundedSemaphore(most_waiting)

    def root(self, request: HttpRequest) -> Response:
        """Say what is served."""
        model = self._service.peek()
        root = Root(
            service="generate",
            version=version(),
            state=self._service.state,
            model=model.info if model else None,
        )
        return json_reply(root)

    def generate(self, request: HttpRequest) -> Response:
        """Continue a prompt, or answer messages."""
        body = read_body(request, GenerateBody)
        body.check()
        deadline = submission.deadline_of(request, self._longest)
        if not body.stream:
            return json_reply(self._generated(request, body, deadline))
        if self._service.state == "loading":
            return self._stream_once_loaded(request, body, deadline)
        submitted = _submit(self._service.get(), body, deadline)
        return self._send([submitted.generation], self._events(request, submitted))

    def chat(self, request: HttpRequest) -> Response:
        """Answer one message, in the older stack's shape."""
        body = read_body(request, ChatBody, untyped=True)
        content = str(body.content)
        if not content:
            raise errors.InvalidField(
                "content: a message is needed, but it is empty", param="content"
            )
        asked = GenerateBody(messages=[Message("user", content)])
        deadline = submission.deadline_of(request, self._longest)
        return json_reply(ChatAnswer(self._generated(request, asked, deadline).text))

    def warm(self, request: HttpRequest) -> Response:
        """Wake up, and, while nothing is generated, read what is being typed."""
        body = read_body(request, WarmBody) if request.get_data() else WarmBody()
        body.check()
        model = self._service.peek()
        warmed = Warmed(state=self._service.state, prompt_tokens=0, cached_tokens=0)
        if model is None or not (body.prompt or body.messages) or not model.scheduler.idle:
            return json_reply(warmed)
        asked = GenerateBody(prompt=body.prompt, messages=body.messages, max_new_tokens=0)
        deadline = submission.deadline_of(request, WARM_SECONDS)
        try:
            usage = _read(request, _submit(model, asked, deadline, background=True)).usage
        except (errors.ClientGone, errors.Overloaded):
            return json_reply(warmed)  # another request came, and goes first
        warmed.prompt_tokens, warmed.cached_tokens = usage.prompt_tokens, usage.cached_tokens
        return json_reply(warmed)

    def _generated(self, request: HttpRequest, body: GenerateBody, deadline: float) -> Generated:
        return _read(request, _submit(self._service.get(), body, deadline))

    def _stream_once_loaded(
        self, request: HttpRequest, body: GenerateBody, deadline: float
    ) -> Response:
        """Reply with a stream that says that the model loads, and then submits the request."""
        if not self._waiting.acquire(blocking=False):
            raise errors.Loading("the model is still loading, and many wait for it", retry_after=2)
        generations: list[events.Generation] = []

        def lines() -> Iterator[bytes]:
            yield sse.event("status", LoadingStatus())
            while not self._service.wait(streams.TICK):
                if client_left(request.environ):
                    raise errors.ClientGone("the client left")
                if time.monotonic() > deadline:
                    raise errors.DeadlineExceeded("the model took too long to load")
                yield b""
            submitted = _submit(self._service.get(), body, deadline, request=request)
            generations.append(submitted.generation)
            yield from self._events(request, submitted)

        response = self._send(generations, lines())
        response.call_on_close(self._waiting.release)
        return response

    def _events(self, request: HttpRequest, submitted: _Submitted) -> Iterator[bytes]:
        found = streams.follow([submitted.generation], request)
        return stream(submitted.model, found, submitted.reply)

    def _send(self, generations: list[events.Generation], lines: Iterator[bytes]) -> Response:
        return streams.send_events(
            generations, lines, failed=lambda error: sse.event("error", error.body())
        )


def _submit(
    model: LoadedModel,
    body: GenerateBody,
    deadline: float,
    *,
    background: bool = False,
    request: HttpRequest | None = None,
) -> _Submitted:
    """Queue a request; the arguments and errors are those of `submission.submit`."""
    sampling, stop = sampling_params(model, body), stop_strings(body.stop)
    limit = NEW_TOKENS if body.max_new_tokens is None else body.max_new_tokens
    is_chat = body.messages is not None

    def prepare() -> list[GenerationRequest]:
        messages = [
            {"role": message.role, "content": message.content or ""}
            for message in body.messages or ()
        ]
        ids = submission.prompt_ids(model, messages if is_chat else body.prompt or "")
        ends = stop + model.chat.stop if is_chat else stop
        return [GenerationRequest(ids, limit, sampling, ends, deadline)]

    (generation,) = submission.submit(
        model,
        prepare,
        "messages" if is_chat else "prompt",
        background=background,
        request=request,
    )
    return _Submitted(model, generation, WrittenReply(is_chat=is_chat))


def _read(request: HttpRequest, submitted: _Submitted) -> Generated:
    """Wait for the whole reply; cancels the generation when the client leaves."""
    reply = submitted.reply
    streams.read(request, [submitted.generation], lambda _, event: reply.take(event))
    return generated(submitted.model, reply)
