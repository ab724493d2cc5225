"""What /v1/responses takes, and what it answers: OpenAI's object response and its events."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from functions import errors
from functions.generate.fields import Ignored, NonEmptyText, TokenLimit, TopLogprobs
from functions.generate.logprobs import TokenLogprob
from functions.generate.refusals import check_tool_choice, missing, unsupported
from functions.generate.sampling import OpenAISamplingFields
from functions.generate.timings import Timings

TEXT_KINDS = ("input_text", "output_text", "text", "refusal")
LOGPROBS = "message.output_text.logprobs"
# What else a response can hold: of tools, images and reasoning, of which there are none here.
INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
MessageStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = MessageStatus | Literal["failed"]


class InputText(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message: text of the user's, or of an earlier reply, or that it refused."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    # What the parts of a reply hold, and come back with; and a hint at what to keep in a cache.
    annotations: Ignored = None
    logprobs: Ignored = None
    prompt_cache_breakpoint: Ignored = None

    def read(self, where: str) -> str:
        """Return its text; raises `InvalidField` with the name of the part, which is `where`."""
        name, found = ("refusal", self.refusal) if self.type == "refusal" else ("text", self.text)
        if found is None:
            missing(f"{where}.{name}")
        return found


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of the conversation; an earlier reply's can be given as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText] | None
    type: Literal["message"] | None = None
    id: str | None = None
    status: MessageStatus | None = None
    phase: Ignored = None

    def for_template(self, where: str) -> dict[str, str]:
        """Return it as chat templates take it.

        Raises `InvalidField` for what cannot be read; `where` is the message's name in the body.
        """
        match self.content:
            case None:
                text = ""
            case str():
                text = self.content
            case parts:
                text = "".join(
                    part.read(f"{where}.content[{place}]") for place, part in enumerate(parts)
                )
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseBody(OpenAISamplingFields, forbid_unknown_fields=True, kw_only=True):
    """What `POST /v1/responses` takes."""

    input: NonEmptyText | Annotated[list[InputMessage], Meta(min_length=1, max_length=1000)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: TokenLimit | None = None
    stream: bool | None = None
    text: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    access_programs: Ignored = None
    image: Ignored = None  # how images are read, of which there are none
    background: bool | None = None
    background_options: Ignored = None  # of what runs in the background
    # What would change the answer, and cannot be done.
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    context_management: Annotated[list[Any], Meta(max_length=0)] | None = None
    moderation: None = None

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as chat templates take it."""
        found = []
        if self.instructions is not None:
            found.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*found, {"role": "user", "content": self.input}]
        return [*found, *(each.for_template(f"input[{at}]") for at, each in enumerate(self.input))]

    @property
    def includes_logprobs(self) -> bool:
        """Whether the tokens' log-probabilities are asked for."""
        return LOGPROBS in (self.include or ())

    def check(self) -> None:
        """Raise `InvalidField` for what would change the answer, and cannot be done."""
        match (self.text or {}).get("format"):
            case None | {"type": "text"}:
                pass
            case {"type": str(kind)}:
                unsupported("text.format", kind, "BLOOM writes plain text")
            case _:
                raise errors.InvalidField("text.format must have a type", param="text.format")
        check_tool_choice(self.tool_choice)
        for place, wanted in enumerate(self.include or ()):
            if wanted not in (LOGPROBS, *INCLUDABLE):
                unsupported(f"include[{place}]", wanted, "it is not known here")
        if self.background:
            unsupported("background", "true", "the answer comes with this request")
        if (self.prompt_cache_options or {}).get("prewarm"):
            field = "prompt_cache_options.prewarm"
            unsupported(field, "true", "POST /warm reads a prompt ahead")
        if self.top_logprobs and not self.includes_logprobs:
            raise errors.InvalidField(
                f"top_logprobs needs {LOGPROBS} in include", param="top_logprobs"
            )


def refuse_other_kinds(raw: object) -> None:
    """Raise `InvalidField` for items and parts of the input that are not text, by their kind.

    `raw` is the decoded body. Its other fields are not looked at: an image's would be unknown.
    """
    items = raw.get("input") if isinstance(raw, Mapping) else None
    for place, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if isinstance(kind, str) and kind != "message":
            unsupported(f"input[{place}].type", kind, "messages are read, and nothing else")
        parts = item.get("content")
        for at, part in enumerate(parts if isinstance(parts, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in TEXT_KINDS:
                field = f"input[{place}].content[{at}].type"
                unsupported(field, kind, "BLOOM reads text only")


class OutputText(msgspec.Struct, kw_only=True):
    """The text of a reply."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class OutputMessage(msgspec.Struct, kw_only=True):
    """The one item of a response: the reply."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: MessageStatus
    content: list[OutputText]


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """How many of the prompt's tokens the cache knew from earlier requests."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """How many of the reply's tokens were reasoning: none."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, kw_only=True):
    """How many tokens were read and written."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(msgspec.Struct, kw_only=True):
    """Why a response failed; OpenAI knows few codes of a response's own."""

    code: Literal["rate_limit_exceeded", "server_error"]
    message: str


class IncompleteDetails(msgspec.Struct, kw_only=True):
    """Why a reply was cut."""

    reason: Literal["max_output_tokens"]


class TextFormat(msgspec.Struct, kw_only=True):
    """The format of the reply."""

    type: Literal["text"]


class TextSettings(msgspec.Struct, kw_only=True):
    """How the reply's text is written."""

    format: TextFormat
    verbosity: Literal["medium"]


class ReasoningSettings(msgspec.Struct, kw_only=True):
    """How much the model reasons: not at all."""

    effort: None
    summary: None


class ModelResponse(msgspec.Struct, kw_only=True):
    """OpenAI's object response; from `instructions` on, mostly what the request asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: TextSettings
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    max_tool_calls: int | None
    metadata: dict[str, str]
    reasoning: ReasoningSettings
    truncation: Literal["disabled"]
    service_tier: Literal["default"]
    store: bool
    background: bool
    previous_response_id: None
    prompt_cache_key: str | None
    safety_identifier: str | None
    user: str | None
    timings: Timings | UnsetType = UNSET


class ResponseEvent(msgspec.Struct, tag_field="type", kw_only=True):
    """An event of a stream; they are numbered from 0."""

    sequence_number: int


class ResponseCreated(ResponseEvent, tag="response.created", kw_only=True):
    """The first event."""

    response: ModelResponse


class ResponseInProgress(ResponseEvent, tag="response.in_progress", kw_only=True):
    """The second event."""

    response: ModelResponse


class OutputItemAdded(ResponseEvent, tag="response.output_item.added", kw_only=True):
    """The reply begins; it has no content yet."""

    output_index: int
    item: OutputMessage


class ContentEvent(ResponseEvent, kw_only=True):
    """An event of the reply's one text."""

    output_index: int
    content_index: int
    item_id: str


class ContentPartAdded(ContentEvent, tag="response.content_part.added", kw_only=True):
    """The text begins; it is empty yet."""

    part: OutputText


class OutputTextDelta(ContentEvent, tag="response.output_text.delta", kw_only=True):
    """A piece of the text."""

    delta: str
    logprobs: list[TokenLogprob]


class OutputTextDone(ContentEvent, tag="response.output_text.done", kw_only=True):
    """The whole text."""

    text: str
    logprobs: list[TokenLogprob]


class ContentPartDone(ContentEvent, tag="response.content_part.done", kw_only=True):
    """The whole text, as the response holds it."""

    part: OutputText


class OutputItemDone(ResponseEvent, tag="response.output_item.done", kw_only=True):
    """The whole reply."""

    output_index: int
    item: OutputMessage


class ResponseCompleted(ResponseEvent, tag="response.completed", kw_only=True):
    """The last event of a reply that the model ended."""

    response: ModelResponse


class ResponseIncomplete(ResponseEvent, tag="response.incomplete", kw_only=True):
    """The last event of a reply that was cut."""

    response: ModelResponse


class ResponseFailed(ResponseEvent, tag="response.failed", kw_only=True):
    """The last event of a reply that failed."""

    response: ModelResponse


EVENTS = (
    ResponseCreated,
    ResponseInProgress,
    OutputItemAdded,
    ContentPartAdded,
    OutputTextDelta,
    OutputTextDone,
    ContentPartDone,
    OutputItemDone,
    ResponseCompleted,
    ResponseIncomplete,
    ResponseFailed,
)
