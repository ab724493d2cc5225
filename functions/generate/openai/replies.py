"""Replies as OpenAI's completions and chat completions write them, whole and in chunks."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from functions.generate.logprobs import token_logprob, token_text
from functions.generate.openai.schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
    CompletionUsage,
    PromptTokensDetails,
)
from functions.generate.timings import timings_of
from functions.generate.written import PlacedToken, WrittenReply
from model.load import LoadedModel
from model.serving import events


class ReplyFormat(ABC):
    """How the replies to one request are written; each has its index among the choices."""

    id_prefix = ""

    def __init__(self, model: LoadedModel, choices_per_prompt: int, *, logprobs: bool) -> None:
        """Take a request; `logprobs` says whether it asks for the tokens' log-probabilities."""
        self.logprobs = logprobs
        self._model, self._choices_per_prompt = model, choices_per_prompt
        self._id = f"{self.id_prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    @abstractmethod
    def whole(self, replies: Sequence[WrittenReply]) -> msgspec.Struct:
        """Return the answer with all replies, each of which is done."""

    @abstractmethod
    def chunk(self, choices: list[Any], **usage: Any) -> msgspec.Struct:
        """Return an event of a stream; `usage` is the chunk's field of that name, and `timings`."""

    @abstractmethod
    def first(self, index: int, reply: WrittenReply) -> msgspec.Struct | None:
        """Return the choice of a reply's first chunk, if it has one before any token."""

    @abstractmethod
    def piece(self, index: int, text: str, tokens: Sequence[PlacedToken]) -> msgspec.Struct:
        """Return the choice of a chunk with a piece of a reply."""

    @abstractmethod
    def last(self, index: int, done: events.Done) -> msgspec.Struct:
        """Return the choice of a reply's last chunk."""

    def usage(self, replies: Sequence[WrittenReply]) -> dict[str, Any]:
        """Return the fields `usage` and `timings`, summed over all replies, each of them done.

        Replies to one prompt stand in a row, and their prompt is counted once.
        """
        done = [reply.done for reply in replies if reply.done is not None]
        of_prompts = done[:: self._choices_per_prompt]
        prompt_tokens = sum(each.prompt_tokens for each in of_prompts)
        completion_tokens = sum(each.completion_tokens for each in done)
        cached_tokens = sum(each.cached_tokens for each in of_prompts)
        return {
            "usage": CompletionUsage(
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                total_tokens=prompt_tokens + completion_tokens,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
            ),
            "timings": timings_of(done[0]),
        }

    def _envelope(self) -> dict[str, Any]:
        """Return the fields that every answer and chunk has."""
        return {
            "id": self._id,
            "created": self._created,
            "model": self._model.info.name,
            "system_fingerprint": None,
        }


class CompletionFormat(ReplyFormat):
    """The format of /v1/completions."""

    id_prefix = "cmpl"

    def whole(self, replies: Sequence[WrittenReply]) -> Completion:
        """Return the answer with all replies."""
        return Completion(
            **self._envelope(),
            object="text_completion",
            choices=[self._choice(index, reply) for index, reply in enumerate(replies)],
            **self.usage(replies),
        )

    def chunk(self, choices: list[CompletionChunkChoice], **usage: Any) -> CompletionChunk:
        """Return an event of a stream."""
        return CompletionChunk(
            **self._envelope(), object="text_completion", choices=choices, **usage
        )

    def first(self, index: int, reply: WrittenReply) -> CompletionChunkChoice | None:
        """Return the prompt's echo, unless it comes token by token with log-probabilities."""
        if not reply.text or reply.tokens:
            return None
        return self.piece(index, reply.take_unsent()[0], ())

    def piece(self, index: int, text: str, tokens: Sequence[PlacedToken]) -> CompletionChunkChoice:
        """Return the choice of a chunk with a piece of a reply."""
        return CompletionChunkChoice(
            index=index, text=text, logprobs=self._logprobs(tokens), finish_reason=None
        )

    def last(self, index: int, done: events.Done) -> CompletionChunkChoice:
        """Return the choice of a reply's last chunk."""
        return CompletionChunkChoice(
            index=index, text="", logprobs=None, finish_reason=done.finish_reason
        )

    def _choice(self, index: int, reply: WrittenReply) -> CompletionChoice:
        assert reply.done is not None
        return CompletionChoice(
            index=index,
            text=reply.text,
            logprobs=self._logprobs(reply.tokens),
            finish_reason=reply.done.finish_reason,
        )

    def _logprobs(self, placed: Sequence[PlacedToken]) -> CompletionLogprobs | None:
        if not (self.logprobs and placed):
            return None
        likelihoods = [each.token.likelihood for each in placed]
        return CompletionLogprobs(
            tokens=[token_text(self._model, each.token.id) for each in placed],
            token_logprobs=[each.logprob if each else None for each in likelihoods],
            top_logprobs=[
                {token_text(self._model, id_): logprob for id_, logprob in each.top}
                if each
                else None
                for each in likelihoods
            ],
            text_offset=[each.offset for each in placed],
        )


class ChatFormat(ReplyFormat):
    """The format of /v1/chat/completions."""

    id_prefix = "chatcmpl"

    def whole(self, replies: Sequence[WrittenReply]) -> ChatCompletion:
        """Return the answer with all replies."""
        return ChatCompletion(
            **self._envelope(),
            object="chat.completion",
            service_tier=None,
            choices=[self._choice(index, reply) for index, reply in enumerate(replies)],
            **self.usage(replies),
        )

    def chunk(self, choices: list[ChatChunkChoice], **usage: Any) -> ChatCompletionChunk:
        """Return an event of a stream."""
        return ChatCompletionChunk(
            **self._envelope(),
            object="chat.completion.chunk",
            service_tier=None,
            choices=choices,
            **usage,
        )

    def first(self, index: int, reply: WrittenReply) -> ChatChunkChoice:
        """Return the choice that names the role."""
        return self._chunk_choice(index, ChatDelta(role="assistant", content=""))

    def piece(self, index: int, text: str, tokens: Sequence[PlacedToken]) -> ChatChunkChoice:
        """Return the choice of a chunk with a piece of a reply."""
        return self._chunk_choice(index, ChatDelta(content=text), self._logprobs(tokens))

    def last(self, index: int, done: events.Done) -> ChatChunkChoice:
        """Return the choice of a reply's last chunk."""
        return ChatChunkChoice(
            index=index, delta=ChatDelta(), logprobs=None, finish_reason=done.finish_reason
        )

    def _choice(self, index: int, reply: WrittenReply) -> ChatChoice:
        assert reply.done is not None
        return ChatChoice(
            index=index,
            message=AssistantMessage(role="assistant", content=reply.text, refusal=None),
            logprobs=self._logprobs(reply.tokens),
            finish_reason=reply.done.finish_reason,
        )

    def _chunk_choice(
        self, index: int, delta: ChatDelta, logprobs: ChatLogprobs | None = None
    ) -> ChatChunkChoice:
        return ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=None)

    def _logprobs(self, placed: Sequence[PlacedToken]) -> ChatLogprobs | None:
        if not (self.logprobs and placed):
            return None
        content = [token_logprob(self._model, each.token) for each in placed]
        return ChatLogprobs(content=content, refusal=None)
