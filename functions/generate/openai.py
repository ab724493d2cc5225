"""The routes that OpenAI's clients call: /v1/completions, /v1/chat/completions, /v1/models.

What BLOOM can do is done as they expect it; what it cannot do is refused by name.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from flask import Request as HttpRequest
from flask import Response
from msgspec import Meta

from functions import drawing, errors, sse
from functions.generate import submission
from functions.http.body import read_body
from functions.http.quoting import describe
from functions.http.replies import as_api_error, json_reply
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.serving import events
from model.serving.request import GenerationRequest
from model.text.tokenizer import NEVER_DRAWN, StreamDecoder

COMPLETION_TOKENS = 16  # of a completion that names none, as OpenAI has it
MOST_CHOICES = 16
MOST_PROMPTS = 64

Penalty = Annotated[float, Meta(ge=-2, le=2)]
# As many as a client likes to ask for; a reply has at most MOST_TOKENS and what there is room for.
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Text = Annotated[str, Meta(min_length=1)]
# What changes nothing in the answer of a model that only writes text, and is looked at by nobody.
Neutral = Annotated[Any, Meta(description="accepted; it changes nothing here")]
# What would change the answer: taken here, so that it is refused by its name and value.
Refused = Annotated[Any, Meta(description="not supported: only null is taken")]


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message; of the kinds that there are, BLOOM reads text."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Refused = None
    input_audio: Refused = None
    file: Refused = None
    video_url: Refused = None
    cache_control: Neutral = None
    prompt_cache_breakpoint: Neutral = None
    annotations: Neutral = None

    def read(self, where: str) -> str:
        """Return its text; raises the error that names the part at `where`."""
        if self.type not in ("text", "refusal"):
            refuse(f"{where}.type", self.type, "BLOOM reads text")
        found = self.text if self.type == "text" else self.refusal
        if found is None:
            missing(f"{where}.{self.type}")
        return found


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    # Tools that another model called, and what they said; templates show them as they like.
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None  # what an assistant said in place of its content
    audio: Refused = None
    annotations: Neutral = None
    reasoning_content: Neutral = None
    reasoning: Neutral = None

    def plain(self, where: str = "message") -> dict[str, Any]:
        """Return it as chat templates take it; raises the error that names what cannot be read."""
        if self.audio is not None:
            refuse(f"{where}.audio", self.audio, "BLOOM reads text")
        content = self.content
        if content is None and self.role == "user":
            missing(f"{where}.content")
        if isinstance(content, list):
            parts = enumerate(content)
            content = "".join(part.read(f"{where}.content[{place}]") for place, part in parts)
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        calls = self.tool_calls
        if not calls and self.function_call:
            calls = [{"type": "function", "function": self.function_call}]
        told = {"name": self.name, "tool_calls": calls, "tool_call_id": self.tool_call_id}
        return {"role": role, "content": content or self.refusal or ""} | {
            name: value for name, value in told.items() if value
        }


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: Neutral = None  # padding against who listens at the line; none is sent


class ResponseFormat(msgspec.Struct):
    """The form of a reply; BLOOM writes text."""

    type: str


class Sampled(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a reply is drawn; what is not given is as the checkpoint, or else piBLOOM, has it."""

    seed: drawing.Seed | None = None
    temperature: drawing.Temperature | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=300)] | None
    ) = None
    # Not OpenAI's, but of the servers that people come from.
    top_k: drawing.TopK | None = None
    repetition_penalty: drawing.RepetitionPenalty | None = None
    min_p: drawing.MinP | None = None


class Common(Sampled, kw_only=True):
    """What both kinds of completion take."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: drawing.Stop | drawing.Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Neutral = None
    store: Neutral = None
    metadata: Neutral = None
    service_tier: Neutral = None
    parallel_tool_calls: Neutral = None
    prediction: Neutral = None
    prompt_cache_key: Neutral = None
    prompt_cache_options: Neutral = None
    prompt_cache_retention: Neutral = None
    reasoning_effort: Neutral = None
    safety_identifier: Neutral = None
    verbosity: Neutral = None

    def check(self) -> None:
        """Raise the error that names what cannot be done."""
        if self.stream_options and self.stream_options.include_usage and not self.stream:
            raise errors.InvalidField("stream_options needs stream", param="stream_options")


class CompletionBody(Common, kw_only=True):
    """What `POST /v1/completions` takes."""

    # A text, its ids, or a list of either; what is in a list is checked by `_prompts_in`.
    prompt: Text | Annotated[list[Any], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None  # 0: the prompt is read
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    def check(self) -> None:
        """Raise the error that names what cannot be done."""
        super().check()
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise errors.InvalidField("best_of must not be below n", param="best_of")
        if self.best_of is not None and self.best_of > (self.n or 1):
            refuse("best_of", self.best_of, "all that is written is returned, so it must be as n")
        if self.suffix:
            length = f"of {len(self.suffix)} characters"
            refuse("suffix", length, "BLOOM writes on, and knows no text that follows")


class ChatCompletionBody(Common, kw_only=True):
    """What `POST /v1/chat/completions` takes."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    # Calling a tool is optional, unless one is demanded; the answer is text.
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Refused = None
    moderation: Refused = None
    web_search_options: Refused = None

    def check(self) -> None:
        """Raise the error that names what cannot be done."""
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise errors.InvalidField("top_logprobs needs logprobs", param="top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise errors.InvalidField(
                "max_completion_tokens is the newer name of max_tokens: give one",
                param="max_tokens",
            )
        if self.response_format and self.response_format.type != "text":
            # In OpenAI's words, by which LangChain knows it.
            kind = _shown(self.response_format.type)
            said = f"'response_format' of type '{kind}' is not supported with this model"
            raise errors.InvalidField(
                f"{said}; it writes plain text", param="response_format", code="unsupported_value"
            )
        check_tools(self.tool_choice)
        check_tools(self.function_call, "function_call")
        for kind in self.modalities or ():
            if kind != "text":
                refuse("modalities", kind, "BLOOM writes text")
        for name in ("audio", "moderation", "web_search_options"):
            if (value := getattr(self, name)) is not None:
                refuse(name, value, "BLOOM only writes text")


def refuse(field: str, value: object, why: str) -> NoReturn:
    """Refuse what would change the answer, and cannot be done, by its name and value."""
    said = f"{field} {_shown(value)} is not supported; {why}"
    raise errors.InvalidField(said, param=field, code="unsupported_value")


def missing(field: str) -> NoReturn:
    """Refuse a request that lacks what it needs."""
    said = f"the field {field} is missing"
    raise errors.InvalidField(said, param=field, code="missing_required_parameter")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:59] + "…"


def check_tools(choice: object, field: str = "tool_choice") -> None:
    """Refuse a tool that must be called; tools that may be are left alone."""
    match choice:
        case None | "auto" | "none" | "" | {"type": "auto" | "none"}:
            return
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}:
            return
        case {"type": "allowed_tools", "mode": "auto"}:
            return
        case {"function": {"name": str(name)}} | {"custom": {"name": str(name)}}:
            demanded: object = name
        case {"name": str(name)}:
            demanded = name
        case _:
            demanded = choice
    refuse(field, demanded, "no tools are called here, and auto or none is answered with text")


class Choice:
    """One reply as it is written: its text, and what is told of its tokens."""

    def __init__(self, decoder: StreamDecoder | None = None, *, trims: bool = False) -> None:
        """Start empty; a decoder is needed where the tokens' places in the text are told."""
        self.text = ""
        self.tokens: list[tuple[events.Token, int]] = []  # and where its text starts
        self.done: events.Done | None = None
        self._decoder, self._offset = decoder, 0
        self._blank = trims
        self._told = (0, 0)  # of the text and the tokens, in earlier chunks

    def take(self, event: events.Event) -> None:
        """Take whatever comes of the generation."""
        match event:
            case events.Token():
                self.push(event)
            case events.PromptToken(id_, likelihood):
                self.push_prompt(id_, likelihood)
            case events.Done():
                self.done = event

    def push(self, token: events.Token) -> None:
        """Take a token of the reply."""
        shown = token.text.lstrip() if self._blank else token.text
        self._blank = self._blank and not shown
        self._place(token)
        self.text += shown

    def push_prompt(self, id_: int, likelihood: events.Likelihood | None = None) -> None:
        """Take a token of a prompt that is told too."""
        self.text += self._place(events.Token(id_, "", likelihood))

    def news(self) -> tuple[str, list[tuple[events.Token, int]]]:
        """Return the text and the tokens that came since this was last called."""
        text, tokens = self._told
        self._told = len(self.text), len(self.tokens)
        return self.text[text:], self.tokens[tokens:]

    def _place(self, token: events.Token) -> str:
        # Not what is shown: a stop string may hold back the text of several tokens.
        self.tokens.append((token, self._offset))
        text = self._decoder.push(token.id) if self._decoder else ""
        self._offset += len(text)
        return text


class Api:
    """The routes, for the model that `get` returns."""

    def __init__(self, get: Callable[[], LoadedModel], longest: float) -> None:
        self._get, self._longest = get, longest
        self._created = int(time.time())

    def models(self, request: HttpRequest) -> Response:
        """List the one model."""
        model = self._get()
        return json_reply({"object": "list", "data": [self._card(model)]})

    def model(self, request: HttpRequest, name: str) -> Response:
        """Describe the one model."""
        model = self._get()
        check_name(model, name)
        return json_reply(self._card(model))

    def completions(self, request: HttpRequest) -> Response:
        """Continue one or several prompts."""
        body = read_body(request, CompletionBody)
        deadline = submission.deadline_of(request, self._longest)
        body.check()
        model = self._get()
        check_name(model, body.model)
        of_prompt = bool(body.echo) and body.logprobs is not None
        each = body.n or 1
        given = _prompts_in(body.prompt)
        stop, sampling = stops_of(body.stop), sampling_of(model, body)
        limit = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        told = body.logprobs is not None
        choices: list[Choice] = []

        def make() -> list[GenerationRequest]:
            requests = []
            for prompt, where in given:
                ids = _ids_of(model, prompt, where)
                echoed = model.tokenizer.decode(ids) if body.echo and not of_prompt else ""
                for place in range(each):
                    choice = Choice(StreamDecoder(model.tokenizer) if told else None)
                    choice.text = echoed
                    if of_prompt:
                        choice.push_prompt(ids[0])  # the others come when they are read
                    choices.append(choice)
                    requests.append(
                        GenerationRequest(
                            ids,
                            min(limit, drawing.MOST_TOKENS),
                            _seeded(sampling, place),
                            stop,
                            deadline,
                            body.logprobs,
                            of_prompt,
                        )
                    )
            return requests

        submitted = submission.submit(model, make, "prompt", replies=each * len(given))
        form = _Completion(model, tells=body.logprobs is not None)
        return self._answer(request, body, submitted, choices, form)

    def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, ChatCompletionBody)
        deadline = submission.deadline_of(request, self._longest)
        body.check()
        model = self._get()
        check_name(model, body.model)
        sampling, stop = sampling_of(model, body), stops_of(body.stop)
        limit = body.max_completion_tokens or body.max_tokens
        each = body.n or 1

        def make() -> list[GenerationRequest]:
            messages = [
                message.plain(f"messages[{place}]") for place, message in enumerate(body.messages)
            ]
            told = (body.top_logprobs or 0) if body.logprobs else None
            asked = answer_to(model, messages, limit, sampling, stop, deadline, told)
            return [replace(asked, sampling=_seeded(sampling, place)) for place in range(each)]

        submitted = submission.submit(model, make, "messages", replies=each)
        choices = [Choice(trims=True) for _ in submitted]
        form = _Chat(model, tells=bool(body.logprobs))
        return self._answer(request, body, submitted, choices, form)

    def _answer(
        self,
        request: HttpRequest,
        body: Common,
        submitted: Sequence[events.Generation],
        choices: Sequence[Choice],
        form: "_Form",
    ) -> Response:
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            usage_of = (body.n or 1) if include_usage else None
            lines = _stream(request, submitted, choices, form, usage_of)
            response = Response(lines, headers=sse.HEADERS)
            response.call_on_close(lambda: submission.cancel(submitted))
            return response
        try:
            for found in submission.follow(submitted, request):
                if found is not None:
                    choices[found[0]].take(found[1])
        finally:
            submission.cancel(submitted)
        whole = [form.whole(place, choice) for place, choice in enumerate(choices)]
        return json_reply(
            form.envelope(form.kind) | {"choices": whole} | _usage(choices, body.n or 1)
        )

    def _card(self, model: LoadedModel) -> dict[str, Any]:
        return {
            "id": model.info.name,
            "object": "model",
            "created": self._created,
            "owned_by": "pibloom",
            "max_model_len": model.scheduler.max_context,
        }


class _Form:
    """How one kind of completion is written down."""

    kind, chunk_kind, prefix = "", "", ""

    def __init__(self, model: LoadedModel, *, tells: bool) -> None:
        """Make the form of a request's replies; `tells`: with the tokens' log-probabilities."""
        self._model, self.tells = model, tells
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def envelope(self, kind: str) -> dict[str, Any]:
        """Return what every reply and chunk starts with."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model.info.name,
            "system_fingerprint": None,
        }

    def opening(self, place: int, choice: Choice) -> dict[str, Any] | None:
        """Return a choice's first chunk, if it has one before any token."""
        return None

    def part(self, place: int, text: str, tokens: Sequence[tuple[events.Token, int]]) -> Any:
        """Return a choice of a chunk."""
        raise NotImplementedError

    def last(self, place: int, done: events.Done) -> dict[str, Any]:
        """Return the choice of its last chunk."""
        raise NotImplementedError

    def whole(self, place: int, choice: Choice) -> dict[str, Any]:
        """Return a choice of a whole reply."""
        raise NotImplementedError

    def piece(self, id_: int) -> str:
        """Return a token's text, with escapes where it cuts a character."""
        return _piece(self._model, id_)


class _Completion(_Form):
    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def opening(self, place: int, choice: Choice) -> dict[str, Any] | None:
        # A prompt whose tokens are told comes with them.
        return self.part(place, choice.news()[0], ()) if choice.text and not choice.tokens else None

    def part(self, place: int, text: str, tokens: Sequence[tuple[events.Token, int]]) -> Any:
        return {
            "index": place,
            "text": text,
            "logprobs": self._logprobs(tokens),
            "finish_reason": None,
        }

    def last(self, place: int, done: events.Done) -> dict[str, Any]:
        return {
            "index": place,
            "text": "",
            "logprobs": None,
            "finish_reason": done.finish_reason,
        }

    def whole(self, place: int, choice: Choice) -> dict[str, Any]:
        assert choice.done is not None
        part: dict[str, Any] = self.part(place, choice.text, choice.tokens)
        return part | {"finish_reason": choice.done.finish_reason}

    def _logprobs(self, tokens: Sequence[tuple[events.Token, int]]) -> dict[str, Any] | None:
        if not (self.tells and tokens):
            return None
        likelihoods = [token.likelihood for token, _ in tokens]
        return {
            "tokens": [self.piece(token.id) for token, _ in tokens],
            # None for a prompt's first token, which nothing foretells.
            "token_logprobs": [each and each.logprob for each in likelihoods],
            "top_logprobs": [
                each and {self.piece(id_): logprob for id_, logprob in each.top}
                for each in likelihoods
            ],
            "text_offset": [at for _, at in tokens],
        }


class _Chat(_Form):
    kind, chunk_kind = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def envelope(self, kind: str) -> dict[str, Any]:
        return super().envelope(kind) | {"service_tier": None}

    def opening(self, place: int, choice: Choice) -> dict[str, Any] | None:
        return self._chunk(place, {"role": "assistant", "content": ""})

    def part(self, place: int, text: str, tokens: Sequence[tuple[events.Token, int]]) -> Any:
        return self._chunk(place, {"content": text}, self._logprobs(tokens))

    def last(self, place: int, done: events.Done) -> dict[str, Any]:
        return self._chunk(place, {}) | {"finish_reason": done.finish_reason}

    def whole(self, place: int, choice: Choice) -> dict[str, Any]:
        assert choice.done is not None
        return {
            "index": place,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.tokens),
            "finish_reason": choice.done.finish_reason,
        }

    def _chunk(
        self, place: int, delta: dict[str, str], logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, tokens: Sequence[tuple[events.Token, int]]) -> dict[str, Any] | None:
        if not (self.tells and tokens):
            return None
        return {
            "content": [likelihood(self._model, token) for token, _ in tokens],
            "refusal": None,
        }


def _stream(
    request: HttpRequest,
    submitted: Sequence[events.Generation],
    choices: Sequence[Choice],
    form: _Form,
    usage_of: int | None,
) -> Iterator[bytes]:
    """Yield chunks, then `[DONE]`; or at the first failure one error, and nothing more.

    The usage is told at the end when `usage_of` says how many choices share a prompt.
    """

    def line(choice: object) -> bytes:
        usage = {} if usage_of is None else {"usage": None}
        return sse.data(form.envelope(form.chunk_kind) | {"choices": [choice]} | usage)

    spoken = time.monotonic()
    try:
        yield sse.OPENING
        for place, choice in enumerate(choices):
            if (first := form.opening(place, choice)) is not None:
                yield line(first)
        for found in submission.follow(submitted, request):
            if time.monotonic() - spoken >= submission.HEARTBEAT:
                spoken = time.monotonic()
                yield sse.HEARTBEAT
            if found is None:
                continue
            place, event = found
            choices[place].take(event)
            text, tokens = choices[place].news()
            if text or (tokens and form.tells):
                yield line(form.part(place, text, tokens))
                spoken = time.monotonic()
            if isinstance(event, events.Done):
                yield line(form.last(place, event))
        if usage_of is not None:
            last = {"choices": []} | _usage(choices, usage_of)
            yield sse.data(form.envelope(form.chunk_kind) | last)
        yield sse.DONE
    except errors.ClientGone:
        return
    except Exception as error:
        yield sse.data(as_api_error(error).body(request.path))
    finally:
        submission.cancel(submitted)


def _usage(choices: Sequence[Choice], each: int) -> dict[str, Any]:
    """Sum up; `each` choices in a row share a prompt, which is counted once."""
    done = [choice.done for choice in choices if choice.done is not None]
    prompt = sum(first.prompt_tokens for first in done[::each])
    completion = sum(choice.completion_tokens for choice in done)
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(first.cached_tokens for first in done[::each])
            },
        },
        "timings": submission.timings(done[0]),
    }


def likelihood(model: LoadedModel, token: events.Token) -> dict[str, Any]:
    """Return how likely a chat's token was, and the likeliest in its place."""
    assert token.likelihood is not None

    def told(id_: int, logprob: float) -> dict[str, Any]:
        data = model.tokenizer.bytes_of(id_)
        return {"token": _piece(model, id_), "logprob": logprob, "bytes": list(data)}

    likeliest = [told(id_, logprob) for id_, logprob in token.likelihood.top]
    return told(token.id, token.likelihood.logprob) | {"top_logprobs": likeliest}


def _piece(model: LoadedModel, id_: int) -> str:
    return model.tokenizer.bytes_of(id_).decode("utf-8", "backslashreplace")


def answer_to(
    model: LoadedModel,
    asked: str | Sequence[dict[str, Any]],
    limit: int | None,
    sampling: SamplingParams,
    stop: tuple[str, ...],
    deadline: float,
    logprobs: int | None = None,
) -> GenerationRequest:
    """Ask for a conversation's next turn, or how a text goes on.

    It has at most `limit` tokens, or else as many as there is room for. `logprobs` is that of
    `GenerationRequest`. Raises `ChatError` when the template refuses the conversation.
    """
    plain = isinstance(asked, str)
    if not isinstance(asked, str):
        asked, stop = model.chat.render(asked), stop + model.chat.stop
    ids = tuple(model.tokenizer.ids(asked, add_special_tokens=plain))
    if not ids:
        raise errors.InvalidField("there is no text to answer", param=None)
    room = max(1, model.scheduler.max_context - len(ids))
    tokens = min(limit or room, drawing.MOST_TOKENS)
    return GenerationRequest(ids, tokens, sampling, stop, deadline, logprobs)


def check_name(model: LoadedModel, name: str | None) -> None:
    """Refuse another model than the one that is served."""
    if name is not None and name != model.info.name:
        raise errors.ModelNotFound(
            f"the model {name[:80]!r} is not served here; {model.info.name!r} is", param="model"
        )


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the strings at which a reply ends, of one, several or none."""
    found = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return tuple(each for each in found if each)


def sampling_of(model: LoadedModel, body: Sampled) -> SamplingParams:
    """Return how a reply is drawn: as the request has it, or else the model."""
    names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
    given = {name: getattr(body, name) for name in (*names, "top_k", "repetition_penalty", "min_p")}
    if body.logit_bias:
        given["logit_bias"] = tuple(_biases(model, body.logit_bias))
    return drawing.drawn(model.sampling, given)


def _biases(model: LoadedModel, biases: dict[str, float]) -> Iterator[tuple[int, float]]:
    for key, bias in biases.items():
        id_ = int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else -1
        if not 0 <= id_ < model.tokenizer.size or id_ in NEVER_DRAWN:
            raise errors.InvalidField(
                "logit_bias: each key must be the id of a token that can be drawn, below"
                f" {model.tokenizer.size}",
                param="logit_bias",
            )
        yield id_, bias


def _seeded(sampling: Any, place: int) -> Any:
    """Give each of several choices a seed of its own that follows from the request's."""
    if sampling.seed is None or not place:
        return sampling
    return replace(sampling, seed=(sampling.seed + place) % 2**63)


def _prompts_in(prompt: str | list[Any]) -> list[tuple[str | list[Any], str]]:
    """Return each prompt, a text or its ids unchecked, and its field's name."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [(prompt, "prompt")]
    if len(prompt) > MOST_PROMPTS:
        raise errors.InvalidField(
            f"prompt: {len(prompt)} prompts are too many; at most {MOST_PROMPTS} are taken",
            param="prompt",
        )
    for place, each in enumerate(prompt):
        where = f"prompt[{place}]"
        if not isinstance(each, str | list):
            raise errors.InvalidField(
                f"{where}: Expected a text or a list of ids, but got {describe(each)}", param=where
            )
        if not each:
            raise errors.InvalidField(f"{where}: a prompt must not be empty", param=where)
    return [(each, f"prompt[{place}]") for place, each in enumerate(prompt)]


def _ids_of(model: LoadedModel, prompt: str | list[Any], where: str) -> tuple[int, ...]:
    """Return a prompt's ids; raises the error that names what is no id."""
    if isinstance(prompt, str):
        return tuple(model.tokenizer.ids(prompt))
    model.scheduler.check_length(len(prompt))  # before each of many is looked at
    size = model.tokenizer.size
    for place, id_ in enumerate(prompt):
        if type(id_) is not int or not 0 <= id_ < size:
            raise errors.InvalidField(
                f"{where}[{place}]: Expected the id of a token, from 0 to {size - 1}, but got"
                f" {describe(id_)}",
                param="prompt",
            )
    return tuple(prompt)
