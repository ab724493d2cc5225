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

from functions import errors, sse
from functions.generate import jobs
from functions.http import as_api_error, json_reply, read_body
from model import generation, loader
from model.sampling import SamplingParams
from model.tokenizer import NEVER_DRAWN, StreamDecoder

COMPLETION_TOKENS = 16  # of a completion that names none, as OpenAI has it
MOST_TOKENS = 4096
MOST_CHOICES = 16

Stop = Annotated[str, Meta(min_length=1, max_length=64)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
Ids = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
Text = Annotated[str, Meta(min_length=1)]


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message; of the kinds that there are, BLOOM reads text."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Meta(min_length=1)]
    # What a reply's own message holds, and comes back with it in the next turn.
    name: None = None
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How a stream is sent."""

    include_usage: bool = False


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """The form of a reply; BLOOM writes text."""

    type: Literal["text"]


class Sampled(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a reply is drawn; what is not given is as the checkpoint, or else piBLOOM, has it."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=300)] | None
    ) = None
    # Not OpenAI's, but of the servers that people come from.
    top_k: Annotated[int, Meta(ge=0, le=1000)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.5, le=5)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None


class Common(Sampled, kw_only=True):
    """What both kinds of completion take."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # who asks is nothing to a model


class CompletionBody(Common, kw_only=True):
    """What `POST /v1/completions` takes."""

    prompt: (
        Text
        | Annotated[
            list[Text | Annotated[int, Meta(ge=0)] | Ids], Meta(min_length=1, max_length=64)
        ]
    )
    max_tokens: Annotated[int, Meta(ge=0, le=MOST_TOKENS)] | None = None  # 0: the prompt is read
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Literal[1] | None = None  # the best of several is not looked for
    suffix: None = None


class ChatCompletionBody(Common, kw_only=True):
    """What `POST /v1/chat/completions` takes."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: None = None
    tool_choice: None = None
    modalities: list[Literal["text"]] | None = None


class Choice:
    """One reply as it is written: its text, and what is told of its tokens."""

    def __init__(self, decoder: StreamDecoder | None = None, *, trims: bool = False) -> None:
        """Start empty; a decoder is needed where the tokens' places in the text are told."""
        self.text = ""
        self.tokens: list[tuple[generation.Token, int]] = []  # and where its text starts
        self.done: generation.Done | None = None
        self._decoder, self._offset = decoder, 0
        self._blank = trims
        self._told = (0, 0)  # of the text and the tokens, in earlier chunks

    def take(self, event: generation.Event) -> None:
        """Take whatever comes of the generation."""
        match event:
            case generation.Token():
                self.push(event)
            case generation.PromptToken(id_, likelihood):
                self.push_prompt(id_, likelihood)
            case generation.Done():
                self.done = event

    def push(self, token: generation.Token) -> None:
        """Take a token of the reply."""
        shown = token.text.lstrip() if self._blank else token.text
        self._blank = self._blank and not shown
        self._place(token)
        self.text += shown

    def push_prompt(self, id_: int, likelihood: generation.Likelihood | None = None) -> None:
        """Take a token of a prompt that is told too."""
        self.text += self._place(generation.Token(id_, "", likelihood))

    def news(self) -> tuple[str, list[tuple[generation.Token, int]]]:
        """Return the text and the tokens that came since this was last called."""
        text, tokens = self._told
        self._told = len(self.text), len(self.tokens)
        return self.text[text:], self.tokens[tokens:]

    def _place(self, token: generation.Token) -> str:
        # Not what is shown: a stop string may hold back the text of several tokens.
        self.tokens.append((token, self._offset))
        text = self._decoder.push(token.id) if self._decoder else ""
        self._offset += len(text)
        return text


class Api:
    """The routes, for the model that `get` returns."""

    def __init__(self, get: Callable[[], loader.Model], longest: float) -> None:
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
        deadline = jobs.deadline_of(request, self._longest)
        model = self._get()
        check_name(model, body.model)
        _check_stream(body)
        if body.best_of is not None and (body.n or 1) > body.best_of:
            raise errors.InvalidField("best_of must not be below n", param="best_of")
        of_prompt = bool(body.echo) and body.logprobs is not None
        stop, sampling = _stops(body), sampling_of(model, body)
        n, told = body.n or 1, body.logprobs is not None
        choices: list[Choice] = []

        def make() -> list[generation.Request]:
            requests = []
            for ids in _prompts(model, body.prompt):
                echoed = model.tokenizer.decode(ids) if body.echo and not of_prompt else ""
                for place in range(n):
                    choice = Choice(StreamDecoder(model.tokenizer) if told else None)
                    choice.text = echoed
                    if of_prompt:
                        choice.push_prompt(ids[0])  # the others come when they are read
                    choices.append(choice)
                    requests.append(
                        generation.Request(
                            tuple(ids),
                            COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens,
                            _seeded(sampling, place),
                            stop,
                            deadline,
                            body.logprobs,
                            of_prompt,
                        )
                    )
            return requests

        submitted = jobs.submit(model, make, "prompt", replies=n * _count(body.prompt))
        form = _Completion(model, tells=body.logprobs is not None)
        return self._answer(request, body, submitted, choices, form)

    def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, ChatCompletionBody)
        deadline = jobs.deadline_of(request, self._longest)
        model = self._get()
        check_name(model, body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise errors.InvalidField("top_logprobs needs logprobs", param="top_logprobs")
        _check_stream(body)
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise errors.InvalidField(
                "max_completion_tokens is the newer name of max_tokens: give one",
                param="max_tokens",
            )
        sampling = sampling_of(model, body)
        limit = body.max_completion_tokens or body.max_tokens

        def make() -> list[generation.Request]:
            messages = [message.plain() for message in body.messages]
            told = (body.top_logprobs or 0) if body.logprobs else None
            asked = answer_to(model, messages, limit, sampling, _stops(body), deadline, told)
            return [
                replace(asked, sampling=_seeded(sampling, place)) for place in range(body.n or 1)
            ]

        submitted = jobs.submit(model, make, "messages", replies=body.n or 1)
        choices = [Choice(trims=True) for _ in submitted]
        form = _Chat(model, tells=bool(body.logprobs))
        return self._answer(request, body, submitted, choices, form)

    def _answer(
        self,
        request: HttpRequest,
        body: Common,
        submitted: Sequence[generation.Generation],
        choices: Sequence[Choice],
        form: "_Form",
    ) -> Response:
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            usage_of = (body.n or 1) if include_usage else None
            lines = _stream(request, submitted, choices, form, usage_of)
            response = Response(lines, headers=sse.HEADERS)
            response.call_on_close(lambda: jobs.cancel(submitted))
            return response
        try:
            for found in jobs.events(submitted, request):
                if found is not None:
                    choices[found[0]].take(found[1])
        finally:
            jobs.cancel(submitted)
        whole = [form.whole(place, choice) for place, choice in enumerate(choices)]
        return json_reply(
            form.envelope(form.kind) | {"choices": whole} | _usage(choices, body.n or 1)
        )

    def _card(self, model: loader.Model) -> dict[str, Any]:
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

    def __init__(self, model: loader.Model, *, tells: bool) -> None:
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
        }

    def opening(self, place: int, choice: Choice) -> dict[str, Any] | None:
        """Return a choice's first chunk, if it has one before any token."""
        return None

    def part(self, place: int, text: str, tokens: Sequence[tuple[generation.Token, int]]) -> Any:
        """Return a choice of a chunk."""
        raise NotImplementedError

    def last(self, place: int, done: generation.Done) -> dict[str, Any]:
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

    def part(self, place: int, text: str, tokens: Sequence[tuple[generation.Token, int]]) -> Any:
        return {
            "index": place,
            "text": text,
            "logprobs": self._logprobs(tokens),
            "finish_reason": None,
        }

    def last(self, place: int, done: generation.Done) -> dict[str, Any]:
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

    def _logprobs(self, tokens: Sequence[tuple[generation.Token, int]]) -> dict[str, Any] | None:
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

    def opening(self, place: int, choice: Choice) -> dict[str, Any] | None:
        return self._chunk(place, {"role": "assistant", "content": ""})

    def part(self, place: int, text: str, tokens: Sequence[tuple[generation.Token, int]]) -> Any:
        return self._chunk(place, {"content": text}, self._logprobs(tokens))

    def last(self, place: int, done: generation.Done) -> dict[str, Any]:
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

    def _logprobs(self, tokens: Sequence[tuple[generation.Token, int]]) -> dict[str, Any] | None:
        if not (self.tells and tokens):
            return None
        return {
            "content": [likelihood(self._model, token) for token, _ in tokens],
            "refusal": None,
        }


def _stream(
    request: HttpRequest,
    submitted: Sequence[generation.Generation],
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
        for found in jobs.events(submitted, request):
            if time.monotonic() - spoken >= jobs.HEARTBEAT:
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
            if isinstance(event, generation.Done):
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
        jobs.cancel(submitted)


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
        "timings": jobs.timings(done[0]),
    }


def likelihood(model: loader.Model, token: generation.Token) -> dict[str, Any]:
    """Return how likely a chat's token was, and the likeliest in its place."""
    assert token.likelihood is not None

    def told(id_: int, logprob: float) -> dict[str, Any]:
        data = model.tokenizer.bytes_of(id_)
        return {"token": _piece(model, id_), "logprob": logprob, "bytes": list(data)}

    likeliest = [told(id_, logprob) for id_, logprob in token.likelihood.top]
    return told(token.id, token.likelihood.logprob) | {"top_logprobs": likeliest}


def _piece(model: loader.Model, id_: int) -> str:
    return model.tokenizer.bytes_of(id_).decode("utf-8", "backslashreplace")


def answer_to(
    model: loader.Model,
    asked: str | Sequence[dict[str, str]],
    limit: int | None,
    sampling: SamplingParams,
    stop: tuple[str, ...],
    deadline: float,
    logprobs: int | None = None,
) -> generation.Request:
    """Ask for a conversation's next turn, or how a text goes on.

    It has at most `limit` tokens, or else as many as there is room for. `logprobs` is that of
    `generation.Request`. Raises `ChatError` when the template refuses the conversation.
    """
    if not isinstance(asked, str):
        asked, stop = model.chat.render(asked), stop + model.chat.stop
    ids = tuple(model.tokenizer.ids(asked))
    if not ids:
        raise errors.InvalidField("there is no text to answer", param=None)
    room = max(1, model.scheduler.max_context - len(ids))
    tokens = limit or min(MOST_TOKENS, room)
    return generation.Request(ids, tokens, sampling, stop, deadline, logprobs)


def refuse(field: str, value: str, why: str) -> NoReturn:
    """Refuse what cannot be done by its name."""
    said = f"{field}: {value} is not supported; {why}"
    raise errors.InvalidField(said, param=field, code="unsupported_value")


def check_tools(choice: object) -> None:
    """Refuse a tool that must be called; tools that may be are left alone."""
    match choice:
        case None | "auto" | "none" | {"type": "allowed_tools", "mode": "auto"}:
            return
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}:
            return
    what = choice if isinstance(choice, str) else "a tool's name"
    refuse("tool_choice", what[:40], "no tools are called here, so that auto and none are taken")


def _check_stream(body: Common) -> None:
    if body.stream_options is not None and not body.stream:
        raise errors.InvalidField("stream_options needs stream", param="stream_options")


def check_name(model: loader.Model, name: str | None) -> None:
    """Refuse another model than the one that is served."""
    if name is not None and name != model.info.name:
        raise errors.ModelNotFound(
            f"the model {name[:80]!r} is not served here; {model.info.name!r} is", param="model"
        )


def _stops(body: Common) -> tuple[str, ...]:
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def sampling_of(model: loader.Model, body: Sampled) -> SamplingParams:
    """Return how a reply is drawn: as the request has it, or else the model."""
    names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
    every = (*names, "top_k", "repetition_penalty", "min_p")
    given: dict[str, Any] = {
        name: value for name in every if (value := getattr(body, name)) is not None
    }
    if given.get("top_p") == 0:
        given["top_p"] = 1e-9  # OpenAI's own smallest value: the likeliest token alone
    if body.logit_bias:
        given["logit_bias"] = tuple(_biases(model, body.logit_bias))
    return replace(model.sampling, **given)


def _biases(model: loader.Model, biases: dict[str, float]) -> Iterator[tuple[int, float]]:
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


def _count(prompt: Any) -> int:
    """Return how many prompts are given, without reading them."""
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


def _prompts(model: loader.Model, prompt: Any) -> list[list[int]]:
    """Return each prompt's ids: a text, ids, or a list of either."""
    if isinstance(prompt, str):
        prompt = [prompt]
    if all(isinstance(each, int) for each in prompt):
        prompt = [prompt]
    found = []
    for each in prompt:
        if isinstance(each, int):
            raise errors.InvalidField("prompt: ids and texts are mixed", param="prompt")
        ids = model.tokenizer.ids(each) if isinstance(each, str) else each
        model.scheduler.check_length(len(ids))  # before anything else is done with them
        if max(ids) >= model.tokenizer.size:
            raise errors.InvalidField(
                f"prompt: ids must be below {model.tokenizer.size}", param="prompt"
            )
        found.append(ids)
    return found
