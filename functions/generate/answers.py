"""The types of what `generate` answers with, from which its document is made."""

from typing import Any, Literal, NotRequired, TypedDict

from functions.service import State
from model.load import ModelInfo


class Root(TypedDict):
    """What is served; `model` is null until it is loaded."""

    service: Literal["generate"]
    version: str
    state: State
    model: ModelInfo | None


class Timings(TypedDict):
    """How long a reply took."""

    queued_ms: float
    prefill_ms: float
    decode_ms: float
    tokens_per_second: float


class Usage(TypedDict):
    """How many tokens were read and written; `cached_tokens` of the prompt were known before."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


FinishReason = Literal["stop", "length"]


class Generated(TypedDict):
    """A whole reply; the `done` event of a stream holds the same."""

    text: str
    finish_reason: FinishReason
    model: str
    seed: int
    usage: Usage
    timings: Timings


class OlderAnswer(TypedDict):
    """A reply of the older stack's route."""

    data: str


class Warmed(TypedDict):
    """How far a function is awake, and what it read of a prompt."""

    state: State
    prompt_tokens: int
    cached_tokens: int


class PromptDetails(TypedDict):
    """How much of a prompt was known before."""

    cached_tokens: int


class OpenAIUsage(TypedDict):
    """How many tokens were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionLogprobs(TypedDict):
    """How likely each token was; null for a prompt's first one."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One continuation of one prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(TypedDict):
    """OpenAI's object text_completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[CompletionChoice]
    usage: OpenAIUsage
    timings: Timings


class LikelyToken(TypedDict):
    """A token that may stand in a place, and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(LikelyToken):
    """A token of a reply, and the likeliest in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(TypedDict):
    """How likely each token of a reply was."""

    content: list[ChatToken]
    refusal: None


class ChatMessage(TypedDict):
    """A reply's text."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One reply."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """OpenAI's object chat.completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: None
    service_tier: None
    choices: list[ChatChoice]
    usage: OpenAIUsage
    timings: Timings


class ModelCard(TypedDict):
    """OpenAI's object model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["pibloom"]
    max_model_len: int


class ModelList(TypedDict):
    """The one model."""

    object: Literal["list"]
    data: list[ModelCard]


class OutputText(TypedDict):
    """The text of a response."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChatToken]


class OutputMessage(TypedDict):
    """The one item of a response."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class CachedInput(TypedDict):
    """How much of a prompt was known before."""

    cached_tokens: int


class ReasonedOutput(TypedDict):
    """How much of a reply was reasoning: nothing."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """How many tokens were read and written."""

    input_tokens: int
    input_tokens_details: CachedInput
    output_tokens: int
    output_tokens_details: ReasonedOutput
    total_tokens: int


class ModelResponse(TypedDict):
    """OpenAI's object response: what it says; the request's own fields come back in it too."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    error: dict[str, str] | None
    incomplete_details: dict[str, str] | None
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None


class OllamaEnd(TypedDict):
    """What the last line of a reply, or a whole one, holds; durations are in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[Literal["stop", "length", "load"]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]
    logprobs: NotRequired[list[ChatToken]]


class OllamaTurn(TypedDict):
    """A reply's text, or a part of it."""

    role: Literal["assistant"]
    content: str


class OllamaChat(OllamaEnd):
    """An answer of /api/chat, whole or as a line."""

    message: OllamaTurn


class OllamaGenerated(OllamaEnd):
    """An answer of /api/generate, whole or as a line."""

    response: str


class OllamaDetails(TypedDict):
    """What kind of model it is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaCard(TypedDict):
    """One model; the last three of one that is loaded."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: NotRequired[str]
    size_vram: NotRequired[int]
    context_length: NotRequired[int]


class OllamaModels(TypedDict):
    """The one model."""

    models: list[OllamaCard]


class OllamaShown(TypedDict):
    """What the one model is."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(TypedDict):
    """The release of Ollama that the routes follow."""

    version: str
