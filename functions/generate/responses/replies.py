"""Responses as OpenAI's newer API writes them, whole and as typed events."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from functions import errors, sse
from functions.generate.logprobs import TokenLogprob, token_logprob
from functions.generate.responses.schemas import (
    ContentPartAdded,
    ContentPartDone,
    IncompleteDetails,
    InputTokensDetails,
    MessageStatus,
    ModelResponse,
    OutputItemAdded,
    OutputItemDone,
    OutputMessage,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    OutputTokensDetails,
    ReasoningSettings,
    ResponseBody,
    ResponseCompleted,
    ResponseCreated,
    ResponseError,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseStatus,
    ResponseUsage,
    TextFormat,
    TextSettings,
)
from functions.generate.streams import Found
from functions.generate.timings import timings_of
from functions.generate.written import PlacedToken, WrittenReply
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.serving import events


class ResponseWriter:
    """Writes one response, and numbers the events of its stream."""

    def __init__(self, model: LoadedModel, body: ResponseBody, sampling: SamplingParams) -> None:
        self.reply = WrittenReply(is_chat=True)
        self._model, self._body, self._sampling = model, body, sampling
        self._id, self._item_id = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._events = 0

    def response(self, failure: errors.ApiError | None = None) -> ModelResponse:
        """Return the response as it is now, or as it ends with a failure."""
        body, done = self._body, self.reply.done
        status: ResponseStatus = "failed" if failure else self._status()
        cut = IncompleteDetails(reason="max_output_tokens") if status == "incomplete" else None
        return ModelResponse(
            id=self._id,
            object="response",
            created_at=self._created,
            completed_at=int(time.time()) if status == "completed" else None,
            status=status,
            error=_error(failure) if failure else None,
            incomplete_details=cut,
            model=self._model.info.name,
            output=self._output(failed=failure is not None),
            usage=_usage(done) if done else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            top_logprobs=body.top_logprobs or 0,
            text=TextSettings(format=TextFormat(type="text"), verbosity="medium"),
            tools=body.tools or [],
            tool_choice=body.tool_choice or "auto",
            parallel_tool_calls=body.parallel_tool_calls is not False,
            max_tool_calls=body.max_tool_calls,
            metadata=body.metadata or {},
            reasoning=ReasoningSettings(effort=None, summary=None),
            truncation="disabled",
            service_tier="default",
            store=False,
            background=False,
            previous_response_id=None,
            prompt_cache_key=body.prompt_cache_key,
            safety_identifier=body.safety_identifier,
            user=body.user,
            **({"timings": timings_of(done)} if done else {}),
        )

    def stream(self, found: Iterator[Found]) -> Iterator[bytes]:
        """Yield the events of the stream; b"" where there is nothing to send yet.

        `found` holds the events of the one generation that writes the response.
        """
        place: dict[str, Any] = {"output_index": 0, "content_index": 0, "item_id": self._item_id}
        yield self._event(ResponseCreated, response=self.response())
        yield self._event(ResponseInProgress, response=self.response())
        yield self._event(OutputItemAdded, output_index=0, item=self._item(content=[]))
        yield self._event(ContentPartAdded, **place, part=_part("", []))
        for each in found:
            if each is not None:
                self.reply.take(each[1])
            text, tokens = self.reply.take_unsent()
            logprobs = self._logprobs(tokens)
            if text or logprobs:
                yield self._event(OutputTextDelta, **place, delta=text, logprobs=logprobs)
            else:
                yield b""
        text, logprobs = self.reply.text, self._logprobs(self.reply.tokens)
        yield self._event(OutputTextDone, **place, text=text, logprobs=logprobs)
        yield self._event(ContentPartDone, **place, part=_part(text, logprobs))
        yield self._event(OutputItemDone, output_index=0, item=self._item())
        cut = self._status() == "incomplete"
        last = ResponseIncomplete if cut else ResponseCompleted
        yield self._event(last, response=self.response())

    def failed(self, failure: errors.ApiError) -> bytes:
        """Return the last event of a stream that ends without a whole reply."""
        return self._event(ResponseFailed, response=self.response(failure))

    def _status(self) -> MessageStatus:
        if self.reply.done is None:
            return "in_progress"
        return "incomplete" if self.reply.done.finish_reason == "length" else "completed"

    def _output(self, *, failed: bool) -> list[OutputMessage]:
        if failed:
            return [self._item(status="incomplete")] if self.reply.text else []
        return [self._item()] if self.reply.done else []

    def _item(
        self, *, status: MessageStatus | None = None, content: list[OutputText] | None = None
    ) -> OutputMessage:
        """Return the reply as it is now, but for what is given."""
        if content is None:
            content = [_part(self.reply.text, self._logprobs(self.reply.tokens))]
        return OutputMessage(
            id=self._item_id,
            type="message",
            role="assistant",
            status=status or self._status(),
            content=content,
        )

    def _logprobs(self, placed: Sequence[PlacedToken]) -> list[TokenLogprob]:
        if not self._body.includes_logprobs:
            return []
        return [token_logprob(self._model, each.token) for each in placed]

    def _event(self, kind: type[ResponseEvent], **fields: Any) -> bytes:
        event = kind(sequence_number=self._events, **fields)
        self._events += 1
        return sse.event(str(kind.__struct_config__.tag), event)


def _part(text: str, logprobs: list[TokenLogprob]) -> OutputText:
    return OutputText(type="output_text", text=text, annotations=[], logprobs=logprobs)


def _error(failure: errors.ApiError) -> ResponseError:
    return ResponseError(
        code="rate_limit_exceeded" if failure.status == 429 else "server_error",
        message=failure.message,
    )


def _usage(done: events.Done) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=done.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=done.cached_tokens, cache_write_tokens=0
        ),
        output_tokens=done.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=done.prompt_tokens + done.completion_tokens,
    )
