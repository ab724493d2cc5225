"""The routes that Ollama's clients call: /api/chat, /api/generate, /api/tags, /api/show and others.

Streams are lines of JSON. As with Ollama, a reply is streamed unless `stream` is false, the prompt
of /api/generate is asked as a chat's unless `raw` is true, a body's media type is not looked at,
and a request without a prompt only asks for the model. `context` is neither given nor taken.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from flask import Request as HttpRequest
from flask import Response
from msgspec import Meta

from functions import drawing, errors
from functions.generate import openai, streams, submission
from functions.http.body import read_body
from functions.http.replies import json_reply
from model import load
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.serving import events
from model.serving.request import GenerationRequest

HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would otherwise collect the stream
}
# The release of Ollama that these routes follow: clients ask for it, and compare.
FOLLOWS = "0.12.11"
TAG = ":latest"  # what a name without a tag means
Neutral = Any  # taken and without effect here


class Options(openai.Sampled, forbid_unknown_fields=True, kw_only=True):
    """How a reply is drawn, in Ollama's words."""

    repeat_penalty: drawing.RepetitionPenalty | None = None
    # As many as a client likes to ask for; a reply has at most MOST_TOKENS.
    num_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] | None = None
    stop: drawing.Stop | drawing.Stops | None = None
    # Other ways of sampling, which are off by these values.
    repeat_last_n: int | None = None
    mirostat: int | None = None
    tfs_z: float | None = None
    typical_p: float | None = None
    # How the model is held in memory and computed, which is the server's business.
    num_ctx: Neutral = None
    num_keep: Neutral = None
    num_batch: Neutral = None
    num_gpu: Neutral = None
    num_thread: Neutral = None
    main_gpu: Neutral = None
    low_vram: Neutral = None
    numa: Neutral = None
    f16_kv: Neutral = None
    logits_all: Neutral = None
    vocab_only: Neutral = None
    embedding_only: Neutral = None
    use_mmap: Neutral = None
    use_mlock: Neutral = None
    mirostat_tau: Neutral = None
    mirostat_eta: Neutral = None
    penalize_newline: Neutral = None


class OllamaMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | None = ""
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        return {"role": self.role, "content": self.content or ""}


class OllamaBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both /api/chat and /api/generate take."""

    model: str | None = None
    stream: bool | None = None
    options: Options | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    keep_alive: Neutral = None  # the model stays
    format: Any = None
    think: bool | str | None = None
    # What to do where a text or its reply does not fit: here a prompt that does not is refused, and
    # a reply ends.
    truncate: Neutral = None
    shift: Neutral = None
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")


class OllamaChatBody(OllamaBody, kw_only=True):
    """What `POST /api/chat` takes."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=1000)] | None = None
    tools: list[dict[str, Any]] | None = None  # to call one is up to the model


class OllamaGenerateBody(OllamaBody, kw_only=True):
    """What `POST /api/generate` takes."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None


class ShowBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/show` takes."""

    model: str | None = None
    name: str | None = None  # what `model` was called before
    verbose: Neutral = None
    system: Neutral = None
    template: Neutral = None
    options: Neutral = None


class Api:
    """The routes, for the model that `get` returns; `peek` does not wait for it."""

    def __init__(
        self,
        get: Callable[[], LoadedModel],
        peek: Callable[[], LoadedModel | None],
        longest: float,
    ) -> None:
        self._get, self._peek, self._longest = get, peek, longest
        self._started = _now()

    def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, OllamaChatBody, any_type=True)
        for place, message in enumerate(body.messages or ()):
            _refuse_given(message, ("images", "tool_calls", "thinking"), f"messages[{place}].")
        messages = [message.plain() for message in body.messages or ()]
        return self._answer(request, body, messages, "messages", _as_message)

    def generate(self, request: HttpRequest) -> Response:
        """Answer a prompt, or continue it where it is raw."""
        body = read_body(request, OllamaGenerateBody, any_type=True)
        _refuse_given(body, ("suffix", "template", "context", "images", "width", "height", "steps"))
        if body.raw and body.system:
            raise errors.InvalidField("system: a raw prompt is taken as it is", param="system")
        asked: str | list[dict[str, str]] = body.prompt or ""
        if asked and not body.raw:
            system = [{"role": "system", "content": body.system}] if body.system else []
            asked = [*system, {"role": "user", "content": body.prompt or ""}]
        return self._answer(request, body, asked, "prompt", _as_text)

    def tags(self, request: HttpRequest) -> Response:
        """List the one model."""
        return json_reply({"models": [self._card(self._get())]})

    def ps(self, request: HttpRequest) -> Response:
        """List the one model once it is loaded; it stays."""
        model = self._peek()
        if model is None:
            return json_reply({"models": []})
        running = {
            "expires_at": "9999-12-31T23:59:59Z",
            "size_vram": 0,
            "context_length": model.scheduler.max_context,
        }
        return json_reply({"models": [self._card(model) | running]})

    def show(self, request: HttpRequest) -> Response:
        """Describe the one model."""
        body = read_body(request, ShowBody, any_type=True)
        model = self._get()
        _check_name(model, body.model or body.name)
        info, drawn = model.info, model.sampling
        parameters = {
            "temperature": drawn.temperature,
            "top_k": drawn.top_k,
            "top_p": drawn.top_p,
            "min_p": drawn.min_p,
            "repeat_penalty": drawn.repetition_penalty,
        }
        return json_reply(
            {
                "license": info.license or "",
                "modelfile": "",
                "parameters": "\n".join(f"{name} {value}" for name, value in parameters.items()),
                "template": model.chat.source,  # Jinja, where Ollama's are Go's
                "details": _details(info),
                "model_info": {
                    "general.architecture": info.architecture.lower(),
                    "general.basename": info.name,
                    "general.parameter_count": info.parameters,
                    "bloom.context_length": model.scheduler.max_context,
                    "bloom.embedding_length": info.hidden,
                    "bloom.block_count": info.layers,
                    "bloom.attention.head_count": info.heads,
                    "bloom.vocab_size": info.vocab_size,
                },
                "capabilities": ["completion"],
                "modified_at": self._started,
            }
        )

    def version(self, request: HttpRequest) -> Response:
        """Name the release of Ollama that these routes follow."""
        return json_reply({"version": FOLLOWS})

    def _answer(
        self,
        request: HttpRequest,
        body: OllamaBody,
        asked: str | Sequence[dict[str, str]],
        param: str,
        say: "Say",
    ) -> Response:
        """Continue a text, or answer messages."""
        options = body.options or Options()
        _check(body, options)
        deadline = submission.deadline_of(request, self._longest)
        model = self._get()
        _check_name(model, body.model)
        reply = Reply(model, body, say, trims=not isinstance(asked, str))
        if not asked:
            return json_reply(reply.loaded())
        sampling = _sampling(model, options)
        limit = options.num_predict if (options.num_predict or 0) > 0 else None
        stop = (options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ())
        told = (body.top_logprobs or 0) if body.logprobs else None

        def make() -> list[GenerationRequest]:
            return [openai.answer_to(model, asked, limit, sampling, stop, deadline, told)]

        submitted = submission.submit(model, make, param)
        if body.stream is False:
            streams.read(request, submitted, lambda _, event: reply.choice.take(event))
            return json_reply(reply.whole())
        return streams.send(
            submitted,
            reply.lines(submission.follow(submitted, request)),
            headers=HEADERS,
            heartbeat=reply.nothing,
            failed=lambda error: _line(error.body(request.path)),
        )

    def _card(self, model: LoadedModel) -> dict[str, Any]:
        name = _tagged(model.info.name)
        return {
            "name": name,
            "model": name,
            "modified_at": self._started,
            "size": model.info.size_bytes,
            # Ollama's is of a manifest; this one is of what is told of the model.
            "digest": hashlib.sha256(msgspec.json.encode(model.info)).hexdigest(),
            "details": _details(model.info),
        }


Say = Callable[[str], dict[str, Any]]  # how a route writes down text


def _as_message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _as_text(text: str) -> dict[str, Any]:
    return {"response": text}


class Reply:
    """A reply as it is written, and the lines that tell of it."""

    def __init__(self, model: LoadedModel, body: OllamaBody, say: Say, *, trims: bool) -> None:
        self.choice = openai.Choice(trims=trims)
        self._model, self._say = model, say
        self._name = body.model or _tagged(model.info.name)
        self._tells = bool(body.logprobs)

    def lines(self, events: Iterator[tuple[int, events.Event] | None]) -> Iterator[bytes]:
        """Yield the stream's lines; b"" where there is nothing to tell yet."""
        for found in events:
            if found is not None:
                self.choice.take(found[1])
            text, tokens = self.choice.news()
            told = self._logprobs(tokens)
            yield _line(self._said(text) | told | {"done": False}) if text or told else b""
        yield _line(self._said("") | self._end())

    def nothing(self) -> bytes:
        """Return a line that only says that the stream lives."""
        return _line(self._said("") | {"done": False})

    def whole(self) -> dict[str, Any]:
        """Return the whole reply."""
        told = self._logprobs(self.choice.tokens)
        return self._said(self.choice.text) | told | self._end()

    def loaded(self) -> dict[str, Any]:
        """Return the answer to a request that has no prompt."""
        return self._said("") | {"done": True, "done_reason": "load"}

    def _said(self, text: str) -> dict[str, Any]:
        return {"model": self._name, "created_at": _now()} | self._say(text)

    def _logprobs(self, tokens: Sequence[tuple[events.Token, int]]) -> dict[str, Any]:
        if not (self._tells and tokens):
            return {}
        return {"logprobs": [openai.likelihood(self._model, token) for token, _ in tokens]}

    def _end(self) -> dict[str, Any]:
        done = self.choice.done
        assert done is not None
        return {
            "done": True,
            "done_reason": done.finish_reason,
            "total_duration": _nanoseconds(done.queued_s + done.prefill_s + done.decode_s),
            "load_duration": _nanoseconds(done.queued_s),  # as with Ollama, waiting is part of it
            "prompt_eval_count": done.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(done.prefill_s),
            "eval_count": done.completion_tokens,
            # Clients divide by it, and tell no speed where it is 0.
            "eval_duration": _nanoseconds(done.decode_s) if done.tokens_per_second else 0,
        }


def _check(body: OllamaBody, options: Options) -> None:
    """Refuse by its name what would change the answer, and cannot be done."""
    if body.format not in (None, ""):
        kind = body.format if isinstance(body.format, str) else "of a schema"
        openai.refuse("format", kind[:40], "BLOOM writes plain text")
    if body.think not in (None, False, ""):
        openai.refuse("think", "true", "BLOOM does not think apart from what it writes")
    if body.debug_render_only:
        openai.refuse("_debug_render_only", "true", "a prompt is answered, and not shown")
    if body.top_logprobs and not body.logprobs:
        raise errors.InvalidField("top_logprobs needs logprobs", param="top_logprobs")
    off: Mapping[str, tuple[object, ...]] = {
        "mirostat": (None, 0),
        "tfs_z": (None, 1),
        "typical_p": (None, 1),
        "repeat_last_n": (None, -1, 0),
    }
    for name, values in off.items():
        if (value := getattr(options, name)) not in values:
            taken = " and ".join(str(each) for each in values[1:])
            openai.refuse(f"options.{name}", str(value), f"only {taken} can be had here")


def _refuse_given(body: object, names: Sequence[str], prefix: str = "") -> None:
    for name in names:
        if getattr(body, name):
            raise errors.InvalidField(
                f"{prefix}{name} is not supported",
                param=prefix + name,
                code="unsupported_parameter",
            )


def _sampling(model: LoadedModel, options: Options) -> SamplingParams:
    sampling = openai.sampling_of(model, options)
    if options.repeat_penalty is not None:
        sampling = replace(sampling, repetition_penalty=options.repeat_penalty)
    if options.repeat_last_n == 0:  # tokens that are looked at
        sampling = replace(sampling, repetition_penalty=1.0)
    return sampling


def _check_name(model: LoadedModel, name: str | None) -> None:
    if name and name != _tagged(model.info.name):
        openai.check_name(model, name)


def _tagged(name: str) -> str:
    return name if ":" in name else name + TAG


def _details(info: load.ModelInfo) -> dict[str, Any]:
    family = info.architecture.lower()
    return {
        "parent_model": "",
        "format": "pibloom",
        "family": family,
        "families": [family],
        "parameter_size": _human(info.parameters),
        "quantization_level": info.dtype,
    }


def _human(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
