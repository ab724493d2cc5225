"""OpenAI's newer route, /v1/responses: text in, text out, whole or as typed events.

Nothing is kept: `store` is taken, but there is no response to fetch or to go on from later.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from flask import Request as HttpRequest
from flask import Response
from msgspec import Meta

from functions import errors, sse
from functions.generate import openai, streams, submission
from functions.http.body import read_body
from functions.http.replies import json_reply
from model.load import LoadedModel
from model.serving import events
from model.serving.request import GenerationRequest

TEXT_KINDS = ("input_text", "output_text", "text")
LOGPROBS = "message.output_text.logprobs"
# What else a response can hold: of tools, images and reasoning, of which there are none.
INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
Neutral = Any  # taken and without effect here


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message: text of the user's, or of an earlier reply."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    # What the parts of a reply hold, and come back with; and a hint at what to keep in a cache.
    annotations: Neutral = None
    logprobs: Neutral = None
    prompt_cache_breakpoint: Neutral = None


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A turn of the conversation; an earlier reply's message can be given as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None
    type: Literal["message"] | None = None
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Neutral = None

    def plain(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        match self.content:
            case None:
                text = ""
            case str():
                text = self.content
            case parts:
                text = "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseBody(openai.Sampled, forbid_unknown_fields=True, kw_only=True):
    """What `POST /v1/responses` takes."""

    input: (
        Annotated[str, Meta(min_length=1)]
        | Annotated[list[InputMessage], Meta(min_length=1, max_length=1000)]
    )
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: openai.Tokens | None = None
    stream: bool | None = None
    text: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    access_programs: Neutral = None
    image: Neutral = None  # how images are read, of which there are none
    background: bool | None = None
    background_options: Neutral = None  # of what runs in the background
    # What would change the answer, and cannot be done.
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    context_management: Annotated[list[Any], Meta(max_length=0)] | None = None
    moderation: None = None

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as chat templates take it."""
        found = [] if self.instructions is None else [_turn("system", self.instructions)]
        if isinstance(self.input, str):
            return [*found, _turn("user", self.input)]
        return [*found, *(message.plain() for message in self.input)]

    @property
    def tells(self) -> bool:
        """Whether the tokens' log-probabilities are asked for."""
        return LOGPROBS in (self.include or ())


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


class Responses:
    """The routes below /v1/responses, for the model that `get` returns."""

    def __init__(self, get: Callable[[], LoadedModel], longest: float) -> None:
        self._get, self._longest = get, longest

    def create(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, ResponseBody, refuse=_refuse_kinds)
        _check(body)
        deadline = submission.deadline_of(request, self._longest)
        model = self._get()
        openai.check_name(model, body.model)
        sampling = openai.sampling_of(model, body)
        logprobs = (body.top_logprobs or 0) if body.tells else None

        def make() -> list[GenerationRequest]:
            limit = body.max_output_tokens
            messages = body.messages()
            return [openai.answer_to(model, messages, limit, sampling, (), deadline, logprobs)]

        submitted = submission.submit(model, make, "input")
        reply = Reply(model, body, sampling)
        if not body.stream:
            streams.read(request, submitted, lambda _, event: reply.choice.take(event))
            return json_reply(reply.response())
        return streams.send(
            submitted,
            reply.lines(submission.follow(submitted, request)),
            headers=sse.HEADERS,
            heartbeat=lambda: sse.HEARTBEAT,
            failed=reply.failed,
        )

    def stored(self, request: HttpRequest, name: str) -> Response:
        """Say that no response is kept."""
        raise errors.NotFound(
            "responses are not kept here, whatever store said: send the whole conversation as input"
        )


class Reply:
    """A response as it is written, and the events that tell of it."""

    def __init__(self, model: LoadedModel, body: ResponseBody, sampling: Any) -> None:
        self.choice = openai.Choice(trims=True)
        self._model, self._body = model, body
        self._id, self._item_id = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._sent = 0  # events
        self._sampling = sampling

    def response(self, *, failure: errors.ApiError | None = None) -> dict[str, Any]:
        """Return the response as far as it is written, or as it failed."""
        done, body = self.choice.done, self._body
        status = "failed" if failure is not None else self._status()
        cut = status == "incomplete"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": failure and {"code": _code(failure), "message": failure.message},
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": self._model.info.name,
            "output": self._output(failed=failure is not None),
            "usage": _usage(done) if done else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "top_logprobs": body.top_logprobs or 0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tools": body.tools or [],
            "tool_choice": body.tool_choice or "auto",
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "max_tool_calls": body.max_tool_calls,
            "metadata": body.metadata or {},
            "reasoning": {"effort": None, "summary": None},
            "truncation": "disabled",
            "service_tier": "default",
            "store": False,
            "background": False,
            "previous_response_id": None,
            "prompt_cache_key": body.prompt_cache_key,
            "safety_identifier": body.safety_identifier,
            "user": body.user,
        } | ({"timings": submission.timings(done)} if done else {})

    def lines(self, events: Iterator[tuple[int, events.Event] | None]) -> Iterator[bytes]:
        """Yield the events of the stream; b"" where there is nothing to tell yet."""
        place = {"output_index": 0, "content_index": 0, "item_id": self._item_id}
        yield sse.OPENING
        yield self._event("response.created", response=self.response())
        yield self._event("response.in_progress", response=self.response())
        item = self._item() | {"content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **place, part=_part("", []))
        for found in events:
            if found is not None:
                self.choice.take(found[1])
            text, tokens = self.choice.news()
            told = self._logprobs(tokens)
            delta = text or told
            yield (
                self._event("response.output_text.delta", **place, delta=text, logprobs=told)
                if delta
                else b""
            )
        told = self._logprobs(self.choice.tokens)
        text = self.choice.text
        yield self._event("response.output_text.done", **place, text=text, logprobs=told)
        yield self._event("response.content_part.done", **place, part=_part(text, told))
        yield self._event("response.output_item.done", output_index=0, item=self._item())
        yield self._event(f"response.{self._status()}", response=self.response())

    def failed(self, failure: errors.ApiError) -> bytes:
        """Return the last event of a stream that ends without a whole reply."""
        return self._event("response.failed", response=self.response(failure=failure))

    def _status(self) -> Literal["completed", "incomplete", "in_progress"]:
        if self.choice.done is None:
            return "in_progress"
        return "incomplete" if self.choice.done.finish_reason == "length" else "completed"

    def _output(self, *, failed: bool) -> list[dict[str, Any]]:
        if failed:
            return [self._item("incomplete")] if self.choice.text else []
        return [self._item()] if self.choice.done else []

    def _item(self, status: str | None = None) -> dict[str, Any]:
        part = _part(self.choice.text, self._logprobs(self.choice.tokens))
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status or self._status(),
            "content": [part],
        }

    def _logprobs(self, tokens: Sequence[tuple[events.Token, int]]) -> list[dict[str, Any]]:
        if not self._body.tells:
            return []
        return [openai.likelihood(self._model, token) for token, _ in tokens]

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._sent = self._sent, self._sent + 1
        return sse.event(kind, {"type": kind, "sequence_number": number, **fields})


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _code(failure: errors.ApiError) -> str:
    """Return what OpenAI calls a failure; there are few codes of a response's own."""
    return "rate_limit_exceeded" if failure.status == 429 else "server_error"


def _usage(done: events.Done) -> dict[str, Any]:
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": done.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


def _refuse_kinds(raw: object) -> None:
    """Refuse items and parts that are no text by their kind, before their fields are looked at."""
    items = raw.get("input") if isinstance(raw, Mapping) else None
    for place, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if isinstance(kind, str) and kind != "message":
            openai.refuse(f"input[{place}].type", kind, "messages are read, and nothing else")
        parts = item.get("content")
        for at, part in enumerate(parts if isinstance(parts, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in TEXT_KINDS:
                field = f"input[{place}].content[{at}].type"
                openai.refuse(field, kind, "BLOOM reads text only")


def _check(body: ResponseBody) -> None:
    """Refuse by its name what would change the answer, and cannot be done."""
    text = body.text or {}
    match text.get("format"):
        case None | {"type": "text"}:
            pass
        case {"type": str(kind)}:
            openai.refuse("text.format", kind, "BLOOM writes plain text")
        case _:
            raise errors.InvalidField("text.format must have a type", param="text.format")
    openai.check_tools(body.tool_choice)
    for place, wanted in enumerate(body.include or ()):
        if wanted not in (LOGPROBS, *INCLUDABLE):
            openai.refuse(f"include[{place}]", wanted[:60], "it is not known here")
    if body.background:
        openai.refuse("background", "true", "the answer comes with this request")
    if (body.prompt_cache_options or {}).get("prewarm"):
        openai.refuse("prompt_cache_options.prewarm", "true", "POST /warm reads a prompt ahead")
    if body.top_logprobs and not body.tells:
        raise errors.InvalidField(f"top_logprobs needs {LOGPROBS} in include", param="top_logprobs")
