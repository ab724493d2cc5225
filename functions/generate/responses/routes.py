"""OpenAI's newer route, /v1/responses: text in, text out, whole or as typed events.

Nothing is kept: `store` is taken, but there is no response to fetch or to go on from later.
"""

from collections.abc import Callable

from flask import Request as HttpRequest
from flask import Response

from functions import errors
from functions.generate import streams, submission
from functions.generate.responses.replies import ResponseWriter
from functions.generate.responses.schemas import ResponseBody, refuse_other_kinds
from functions.generate.sampling import sampling_params
from functions.http.body import read_body
from functions.http.quoting import shortened
from functions.http.replies import json_reply
from model.load import LoadedModel
from model.serving.request import GenerationRequest


class ResponsesRoutes:
    """The routes, for the model that `get_model` returns; `longest` is in seconds."""

    def __init__(self, get_model: Callable[[], LoadedModel], longest: float) -> None:
        self._get_model, self._longest = get_model, longest

    def create(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = read_body(request, ResponseBody, refuse=refuse_other_kinds)
        body.check()
        deadline = submission.deadline_of(request, self._longest)
        model = self._get_model()
        submission.check_model_name(model, body.model)
        sampling = sampling_params(model, body)
        logprobs = (body.top_logprobs or 0) if body.includes_logprobs else None

        def prepare() -> list[GenerationRequest]:
            limit, messages = body.max_output_tokens, body.messages()
            return [
                submission.generation_request(
                    model, messages, limit, sampling, (), deadline, logprobs
                )
            ]

        generations = submission.submit(model, prepare, "input")
        writer = ResponseWriter(model, body, sampling)
        if not body.stream:
            streams.read(request, generations, lambda _, event: writer.reply.take(event))
            return json_reply(writer.response())
        found = streams.follow(generations, request)
        return streams.send_events(generations, writer.stream(found), failed=writer.failed)

    def stored(self, request: HttpRequest, name: str) -> Response:
        """Say that no response is kept."""
        raise errors.NotFound(
            "responses are not kept here, whatever store said: send the whole conversation as input"
        )

    def unknown(self, request: HttpRequest, name: str) -> Response:
        """Say that OpenAI's other routes, as `input_tokens` and `compact`, are not there."""
        raise errors.NotFound(
            f"there is nothing at POST /v1/responses/{shortened(name)}; tokens are counted by the"
            " function tokenize"
        )
