"""The routes that OpenAI's clients call: /v1/completions, /v1/chat/completions, /v1/models."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Request as HttpRequest
from flask import Response

from functions import errors, ranges, sse
from functions.generate import streams, submission
from functions.generate.openai.replies import ChatFormat, CompletionFormat, ReplyFormat
from functions.generate.openai.schemas import (
    ChatCompletionBody,
    CompletionBody,
    CompletionFields,
    ModelCard,
    ModelList,
)
from functions.generate.openai.stream import chunks
from functions.generate.sampling import sampling_params, stop_strings
from functions.generate.written import WrittenReply
from functions.http.body import read_body
from functions.http.quoting import describe
from functions.http.replies import json_reply
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.serving import events
from model.serving.request import GenerationRequest
from model.text.tokenizer import StreamDecoder

COMPLETION_TOKENS = 16  # of a completion that names no limit, as OpenAI has it
MOST_PROMPTS = 64


class OpenAIRoutes:
    """The routes, for the model that `get_model` returns; `longest` is in seconds."""

    def __init__(self, get_model: Callable[[], LoadedModel], longest: float) -> None:
        self._get_model, self._longest = get_model, longest
        self._created = int(time.time())

    def models(self, request: HttpRequest) -> Response:
        """List the one model."""
        return json_reply(ModelList(object="list", data=[self._card(self._get_model())]))

    def model(self, request: HttpRequest, name: str) -> Response:
        """Describe the one model."""
        model = self._get_model()
        submission.check_model_name(model, name)
        return json_reply(self._card(model))

    def completions(self, request: HttpRequest) -> Response:
        """Continue one or more prompts."""
        body = read_body(request, CompletionBody)
        deadline = submission.deadline_of(request, self._longest)
        body.check()
        model = self._get_model()
        submission.check_model_name(model, body.model)
        prompts = _prompts_of(body.prompt)
        sampling, stop = sampling_params(model, body), stop_strings(body.stop)
        limit = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        n, replies = body.n or 1, list[WrittenReply]()

        def prepare() -> list[GenerationRequest]:
            requests = []
            for prompt in prompts:
                ids = prompt.ids(model)
                replies.extend(_completion_reply(model, body, ids) for _ in range(n))
                request = GenerationRequest(
                    ids,
                    min(limit, ranges.MOST_TOKENS),
                    sampling,
                    stop,
                    deadline,
                    body.logprobs,
                    _echoes_logprobs(body),
                )
                requests += [_with_own_seed(request, choice) for choice in range(n)]
            return requests

        generations = submission.submit(model, prepare, "prompt", replies=n * len(prompts))
        form = CompletionFormat(model, n, logprobs=body.logprobs is not None)
        return _answer(request, body, generations, replies, form)

    def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, ChatCompletionBody)
        deadline = submission.deadline_of(request, self._longest)
        body.check()
        model = self._get_model()
        submission.check_model_name(model, body.model)
        sampling, stop = sampling_params(model, body), stop_strings(body.stop)
        limit = body.max_completion_tokens or body.max_tokens
        top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
        n = body.n or 1

        def prepare() -> list[GenerationRequest]:
            messages = [
                message.for_template(f"messages[{place}]")
                for place, message in enumerate(body.messages)
            ]
            request = submission.generation_request(
                model, messages, limit, sampling, stop, deadline, top_logprobs
            )
            return [_with_own_seed(request, choice) for choice in range(n)]

        generations = submission.submit(model, prepare, "messages", replies=n)
        replies = [WrittenReply(is_chat=True) for _ in generations]
        form = ChatFormat(model, n, logprobs=bool(body.logprobs))
        return _answer(request, body, generations, replies, form)

    def _card(self, model: LoadedModel) -> ModelCard:
        info = model.info
        return ModelCard(
            id=info.name,
            object="model",
            created=self._created,
            owned_by="pibloom",
            max_model_len=model.scheduler.max_context,
            license=info.license,
            revision=info.revision,
            adapter=info.adapter,
            calibration=info.calibration,
            cut=info.cut,
        )


def _answer(
    request: HttpRequest,
    body: CompletionFields,
    generations: Sequence[events.Generation],
    replies: Sequence[WrittenReply],
    form: ReplyFormat,
) -> Response:
    if not body.stream:
        streams.read(request, generations, lambda index, event: replies[index].take(event))
        return json_reply(form.whole(replies))
    found = streams.follow(generations, request)
    return streams.send_events(
        generations,
        chunks(found, replies, form, include_usage=body.includes_usage),
        failed=lambda error: sse.data(error.body(request.path)),
    )


def _completion_reply(
    model: LoadedModel, body: CompletionBody, ids: tuple[int, ...]
) -> WrittenReply:
    """Return the empty reply to a prompt, or one that begins with the prompt's echo."""
    echo = model.tokenizer.decode(ids) if body.echo and body.logprobs is None else ""
    decoder = None if body.logprobs is None else StreamDecoder(model.tokenizer)
    reply = WrittenReply(echo=echo, decoder=decoder)
    if _echoes_logprobs(body):
        reply.echo_token(ids[0])  # nothing precedes it; the others come as they are read
    return reply


def _echoes_logprobs(body: CompletionBody) -> bool:
    return bool(body.echo) and body.logprobs is not None


def _with_own_seed(request: GenerationRequest, choice: int) -> GenerationRequest:
    """Give each of several choices a seed of its own that follows from the request's."""
    sampling: SamplingParams = request.sampling
    if sampling.seed is None or not choice:
        return request
    return replace(request, sampling=replace(sampling, seed=(sampling.seed + choice) % 2**63))


@dataclass(frozen=True)
class _Prompt:
    """A prompt as a body holds it: a text, or a list that should hold ids."""

    value: str | list[Any]
    name: str  # of its field

    def ids(self, model: LoadedModel) -> tuple[int, ...]:
        """Return its ids; raises `InvalidField` for a value that is not an id, or `ContextFull`."""
        if isinstance(self.value, str):
            return submission.prompt_ids(model, self.value)
        model.scheduler.check_length(len(self.value))  # before each of many is looked at
        size = model.tokenizer.size
        for place, id_ in enumerate(self.value):
            if type(id_) is not int or not 0 <= id_ < size:
                raise errors.InvalidField(
                    f"{self.name}[{place}]: Expected the id of a token, from 0 to {size - 1}, but"
                    f" got {describe(id_)}",
                    param="prompt",
                )
        return tuple(self.value)


def _prompts_of(prompt: str | list[Any]) -> list[_Prompt]:
    """Return each prompt that a body's field holds; ids are not checked yet."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [_Prompt(prompt, "prompt")]
    if len(prompt) > MOST_PROMPTS:
        raise errors.InvalidField(
            f"prompt: {len(prompt)} prompts are too many; at most {MOST_PROMPTS} are taken",
            param="prompt",
        )
    prompts = [_Prompt(each, f"prompt[{place}]") for place, each in enumerate(prompt)]
    for each in prompts:
        if not isinstance(each.value, str | list):
            raise errors.InvalidField(
                f"{each.name}: Expected a text or a list of ids, but got {describe(each.value)}",
                param=each.name,
            )
        if not each.value:
            raise errors.InvalidField(f"{each.name}: a prompt must not be empty", param=each.name)
    return prompts
