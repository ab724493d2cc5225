"""The routes that Ollama's clients call: /api/chat, /api/generate, /api/tags, /api/show and others.

Streams are lines of JSON. As with Ollama, a reply is streamed unless `stream` is false, the prompt
of /api/generate is asked as a chat's unless `raw` is true, a body's media type is not looked at,
and a request without a prompt only asks for the model. `context` is neither given nor taken.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from flask import Request as HttpRequest
from flask import Response

from functions.generate import streams, submission
from functions.generate.ollama.replies import OllamaWriter, line, now, tagged
from functions.generate.ollama.schemas import (
    OllamaBody,
    OllamaChatBody,
    OllamaDescription,
    OllamaDetails,
    OllamaGenerateBody,
    OllamaModel,
    OllamaModels,
    OllamaOptions,
    OllamaVersion,
    ShowBody,
)
from functions.generate.sampling import sampling_params, stop_strings
from functions.http.body import read_body
from functions.http.replies import json_reply
from model.load import LoadedModel, ModelInfo
from model.sampling import SamplingParams
from model.serving.request import GenerationRequest

HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would otherwise collect the stream
}
# The release of Ollama that these routes follow: clients ask for it, and compare.
FOLLOWS = "0.12.11"
NEVER = "9999-12-31T23:59:59Z"


class OllamaRoutes:
    """The routes, for the model that `get_model` returns, and `peek_model` if it is loaded.

    `longest` is in seconds.
    """

    def __init__(
        self,
        get_model: Callable[[], LoadedModel],
        peek_model: Callable[[], LoadedModel | None],
        longest: float,
    ) -> None:
        self._get_model, self._peek_model, self._longest = get_model, peek_model, longest
        self._started = now()

    def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, OllamaChatBody, any_type=True)
        body.check()
        messages = [message.for_template() for message in body.messages or ()]
        return self._answer(request, body, messages, "messages")

    def generate(self, request: HttpRequest) -> Response:
        """Answer a prompt, or continue it where it is raw."""
        body = read_body(request, OllamaGenerateBody, any_type=True)
        body.check()
        prompt: str | submission.Conversation = body.prompt or ""
        if prompt and not body.raw:
            system = [{"role": "system", "content": body.system}] if body.system else []
            prompt = [*system, {"role": "user", "content": prompt}]
        return self._answer(request, body, prompt, "prompt")

    def tags(self, request: HttpRequest) -> Response:
        """List the one model."""
        return json_reply(OllamaModels(models=[self._model(self._get_model())]))

    def ps(self, request: HttpRequest) -> Response:
        """List the one model once it is loaded; it stays."""
        model = self._peek_model()
        if model is None:
            return json_reply(OllamaModels(models=[]))
        running = self._model(model)
        running.expires_at, running.size_vram = NEVER, 0
        running.context_length = model.scheduler.max_context
        return json_reply(OllamaModels(models=[running]))

    def show(self, request: HttpRequest) -> Response:
        """Describe the one model."""
        body = read_body(request, ShowBody, any_type=True)
        model = self._get_model()
        _check_model_name(model, body.model or body.name)
        return json_reply(
            OllamaDescription(
                license=model.info.license or "",
                modelfile="",
                parameters=_parameters(model.sampling),
                template=model.chat.source,  # in Jinja, where Ollama's are Go's
                details=_details(model.info),
                model_info=_model_info(model),
                capabilities=["completion"],
                modified_at=self._started,
            )
        )

    def version(self, request: HttpRequest) -> Response:
        """Name the release of Ollama that these routes follow."""
        return json_reply(OllamaVersion(version=FOLLOWS))

    def _answer(
        self,
        request: HttpRequest,
        body: OllamaBody,
        prompt: str | submission.Conversation,
        param: str,
    ) -> Response:
        """Continue a text, or answer a conversation."""
        options = body.options or OllamaOptions()
        deadline = submission.deadline_of(request, self._longest)
        model = self._get_model()
        _check_model_name(model, body.model)
        writer = OllamaWriter(model, body, is_chat=not isinstance(prompt, str))
        if not prompt:
            return json_reply(writer.without_prompt())
        sampling, stop = _sampling_params(model, options), stop_strings(options.stop)
        limit = options.num_predict if (options.num_predict or 0) > 0 else None
        logprobs = (body.top_logprobs or 0) if body.logprobs else None

        def prepare() -> list[GenerationRequest]:
            return [
                submission.generation_request(
                    model, prompt, limit, sampling, stop, deadline, logprobs
                )
            ]

        generations = submission.submit(model, prepare, param)
        if body.stream is False:
            streams.read(request, generations, lambda _, event: writer.reply.take(event))
            return json_reply(writer.whole())
        return streams.send(
            generations,
            writer.stream(streams.follow(generations, request)),
            headers=HEADERS,
            heartbeat=writer.heartbeat,
            failed=lambda error: line(error.body(request.path)),
        )

    def _model(self, model: LoadedModel) -> OllamaModel:
        name = tagged(model.info.name)
        return OllamaModel(
            name=name,
            model=name,
            modified_at=self._started,
            size=model.info.size_bytes,
            # Ollama's is that of a manifest; this one is that of what is known of the model.
            digest=hashlib.sha256(msgspec.json.encode(model.info)).hexdigest(),
            details=_details(model.info),
        )


def _sampling_params(model: LoadedModel, options: OllamaOptions) -> SamplingParams:
    sampling = sampling_params(model, options)
    if options.repeat_penalty is not None:
        sampling = replace(sampling, repetition_penalty=options.repeat_penalty)
    if options.repeat_last_n == 0:  # tokens that are looked at
        sampling = replace(sampling, repetition_penalty=1.0)
    return sampling


def _check_model_name(model: LoadedModel, name: str | None) -> None:
    if name and name != tagged(model.info.name):
        submission.check_model_name(model, name)


def _parameters(sampling: SamplingParams) -> str:
    """Return the default sampling as the lines of a Modelfile."""
    parameters = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
    }
    return "\n".join(f"{name} {value}" for name, value in parameters.items())


def _details(info: ModelInfo) -> OllamaDetails:
    family = info.architecture.lower()
    return OllamaDetails(
        parent_model="",
        format="pibloom",
        family=family,
        families=[family],
        parameter_size=_short(info.parameters),
        quantization_level=info.dtype,
    )


def _model_info(model: LoadedModel) -> dict[str, Any]:
    info = model.info
    return {
        "general.architecture": info.architecture.lower(),
        "general.basename": info.name,
        "general.parameter_count": info.parameters,
        "bloom.context_length": model.scheduler.max_context,
        "bloom.embedding_length": info.hidden,
        "bloom.block_count": info.layers,
        "bloom.attention.head_count": info.heads,
        "bloom.vocab_size": info.vocab_size,
    }


def _short(count: int) -> str:
    """Write a count as Ollama does: 559.2M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
