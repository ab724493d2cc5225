"""What /v1/completions, /v1/chat/completions and /v1/models take, and what they answer.

What BLOOM can do is done as OpenAI's clients expect it; what it cannot do is refused by name.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from functions import errors, ranges
from functions.generate.fields import (
    Ignored,
    NonEmptyText,
    TokenLimit,
    TopLogprobs,
    Unsupported,
)
from functions.generate.logprobs import TokenLogprob
from functions.generate.refusals import check_tool_choice, missing, quoted, unsupported
from functions.generate.sampling import OpenAISamplingFields
from functions.generate.timings import Timings
from model.baked.card import AdapterCard, CalibrationCard, CutCard
from model.serving.events import FinishReason

MOST_CHOICES = 16  # replies to each prompt


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message; of the kinds that OpenAI knows, BLOOM reads text."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Unsupported = None
    input_audio: Unsupported = None
    file: Unsupported = None
    video_url: Unsupported = None
    cache_control: Ignored = None
    prompt_cache_breakpoint: Ignored = None
    annotations: Ignored = None

    def read(self, where: str) -> str:
        """Return its text; raises `InvalidField` with the name of the part, which is `where`."""
        if self.type not in ("text", "refusal"):
            unsupported(f"{where}.type", self.type, "BLOOM reads text")
        found = self.text if self.type == "text" else self.refusal
        if found is None:
            missing(f"{where}.{self.type}")
        return found


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    # Tools that another model called, and what they returned; a template may show them.
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None  # what an assistant said in place of its content
    audio: Unsupported = None
    annotations: Ignored = None
    reasoning_content: Ignored = None
    reasoning: Ignored = None

    def for_template(self, where: str) -> dict[str, Any]:
        """Return it as chat templates take it.

        Raises `InvalidField` for what cannot be read; `where` is the message's name in the body.
        """
        if self.audio is not None:
            unsupported(f"{where}.audio", self.audio, "BLOOM reads text")
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
        others = {"name": self.name, "tool_calls": calls, "tool_call_id": self.tool_call_id}
        return {"role": role, "content": content or self.refusal or ""} | {
            name: value for name, value in others.items() if value
        }


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: Ignored = None  # padding that hides the length of tokens; none is sent


class ResponseFormat(msgspec.Struct):
    """The form of a reply; BLOOM writes text."""

    type: str


class CompletionFields(OpenAISamplingFields, forbid_unknown_fields=True, kw_only=True):
    """What completions and chat completions both take."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: ranges.Stop | ranges.Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Ignored = None
    store: Ignored = None
    metadata: Ignored = None
    service_tier: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    reasoning_effort: Ignored = None
    safety_identifier: Ignored = None
    verbosity: Ignored = None

    @property
    def includes_usage(self) -> bool:
        """Whether the stream's last chunk has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> None:
        """Raise `InvalidField` for what cannot be done."""
        if self.includes_usage and not self.stream:
            raise errors.InvalidField("stream_options needs stream", param="stream_options")


class CompletionBody(CompletionFields, forbid_unknown_fields=True, kw_only=True):
    """What `POST /v1/completions` takes."""

    # A text, its ids, or a list of either; `openai.routes` checks what is in a list.
    prompt: NonEmptyText | Annotated[list[Any], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None  # 0: the prompt is read
    echo: bool | None = None
    logprobs: TopLogprobs | None = None
    best_of: int | None = None
    suffix: str | None = None

    def check(self) -> None:
        """Raise `InvalidField` for what cannot be done."""
        super().check()
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise errors.InvalidField("best_of must not be below n", param="best_of")
        if self.best_of is not None and self.best_of > (self.n or 1):
            reason = "all that is written is returned, so it must be as n"
            unsupported("best_of", self.best_of, reason)
        if self.suffix:
            length = f"of {len(self.suffix)} characters"
            unsupported("suffix", length, "BLOOM writes on, and knows no text that follows")


class ChatCompletionBody(CompletionFields, forbid_unknown_fields=True, kw_only=True):
    """What `POST /v1/chat/completions` takes."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=1000)]
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: ResponseFormat | None = None
    # Tools are ignored, as the model need not call any, unless the choice demands a call.
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None

    def check(self) -> None:
        """Raise `InvalidField` for what cannot be done."""
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
            kind = quoted(self.response_format.type)
            # LangChain knows this error by OpenAI's words.
            raise errors.InvalidField(
                f"'response_format' of type '{kind}' is not supported with this model; it writes"
                " plain text",
                param="response_format",
                code="unsupported_value",
            )
        check_tool_choice(self.tool_choice)
        check_tool_choice(self.function_call, "function_call")
        for kind in self.modalities or ():
            if kind != "text":
                unsupported("modalities", kind, "BLOOM writes text")
        for name in ("audio", "moderation", "web_search_options"):
            if (value := getattr(self, name)) is not None:
                unsupported(name, value, "BLOOM only writes text")


class PromptTokensDetails(msgspec.Struct, kw_only=True):
    """How many of the prompt's tokens the cache knew from earlier requests."""

    cached_tokens: int


class CompletionUsage(msgspec.Struct, kw_only=True):
    """How many tokens were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """How likely each token was; null for a prompt's first one, which nothing precedes."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChunkChoice(msgspec.Struct, kw_only=True):
    """A piece of one continuation; the last piece has the reason for its end."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class CompletionChoice(CompletionChunkChoice, kw_only=True):
    """One continuation of one prompt."""

    finish_reason: FinishReason


class CompletionChunk(msgspec.Struct, kw_only=True):
    """An event of a streamed completion; usage and timings come with the last, if asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[CompletionChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET


class Completion(msgspec.Struct, kw_only=True):
    """OpenAI's object text_completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[CompletionChoice]
    usage: CompletionUsage
    timings: Timings


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """How likely each token of a reply was."""

    content: list[TokenLogprob]
    refusal: None


class AssistantMessage(msgspec.Struct, kw_only=True):
    """The text of a reply."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(msgspec.Struct, kw_only=True):
    """One reply."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatDelta(msgspec.Struct, kw_only=True):
    """A piece of a reply: the role comes first, and nothing with the end."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    """A piece of one reply; the last piece has the reason for its end."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """OpenAI's object chat.completion.chunk; usage and timings come with the last, if asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: None
    service_tier: None
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """OpenAI's object chat.completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: None
    service_tier: None
    choices: list[ChatChoice]
    usage: CompletionUsage
    timings: Timings


class ModelCard(msgspec.Struct, kw_only=True):
    """OpenAI's object model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["pibloom"]
    max_model_len: int
    # Of the model's card.
    license: str | None
    revision: str | None
    adapter: AdapterCard | None
    calibration: CalibrationCard | None
    cut: CutCard | None


class ModelList(msgspec.Struct, kw_only=True):
    """The one model that is served."""

    object: Literal["list"]
    data: list[ModelCard]
