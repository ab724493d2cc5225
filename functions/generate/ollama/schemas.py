"""What Ollama's routes take, and what they answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from functions import errors, ranges
from functions.generate.fields import Ignored, TopLogprobs
from functions.generate.logprobs import TokenLogprob
from functions.generate.refusals import unsupported
from functions.generate.sampling import OpenAISamplingFields


class OllamaOptions(OpenAISamplingFields, forbid_unknown_fields=True, kw_only=True):
    """How a reply is sampled, in Ollama's words."""

    repeat_penalty: ranges.RepetitionPenalty | None = None
    # No upper bound of ours: a reply has at most `ranges.MOST_TOKENS`.
    num_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] | None = None
    stop: ranges.Stop | ranges.Stops | None = None
    # Other ways of sampling; each has values that turn it off, and only those are taken.
    repeat_last_n: int | None = None
    mirostat: int | None = None
    tfs_z: float | None = None
    typical_p: float | None = None
    # How the model is held in memory and computed, which is the server's business.
    num_ctx: Ignored = None
    num_keep: Ignored = None
    num_batch: Ignored = None
    num_gpu: Ignored = None
    num_thread: Ignored = None
    main_gpu: Ignored = None
    low_vram: Ignored = None
    numa: Ignored = None
    f16_kv: Ignored = None
    logits_all: Ignored = None
    vocab_only: Ignored = None
    embedding_only: Ignored = None
    use_mmap: Ignored = None
    use_mlock: Ignored = None
    mirostat_tau: Ignored = None
    mirostat_eta: Ignored = None
    penalize_newline: Ignored = None

    def check(self) -> None:
        """Raise `InvalidField` for another way of sampling that is not off."""
        off: Mapping[str, tuple[object, ...]] = {
            "mirostat": (None, 0),
            "tfs_z": (None, 1),
            "typical_p": (None, 1),
            "repeat_last_n": (None, -1, 0),
        }
        for name, values in off.items():
            if (value := getattr(self, name)) not in values:
                taken = " and ".join(str(each) for each in values[1:])
                unsupported(f"options.{name}", str(value), f"only {taken} can be had here")


class OllamaMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | None = None
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None

    def for_template(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        return {"role": self.role, "content": self.content or ""}


class OllamaBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both /api/chat and /api/generate take."""

    model: str | None = None
    stream: bool | None = None
    options: OllamaOptions | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    keep_alive: Ignored = None  # the model stays
    format: Any = None
    think: bool | str | None = None
    # What to do where a text or its reply does not fit: here a prompt that does not is refused, and
    # a reply ends.
    truncate: Ignored = None
    shift: Ignored = None
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")

    def check(self) -> None:
        """Raise `InvalidField` for what would change the answer, and cannot be done."""
        if self.format not in (None, ""):
            kind = self.format if isinstance(self.format, str) else "of a schema"
            unsupported("format", kind[:40], "BLOOM writes plain text")
        if self.think not in (None, False, ""):
            unsupported("think", "true", "BLOOM does not think apart from what it writes")
        if self.debug_render_only:
            unsupported("_debug_render_only", "true", "a prompt is answered, and not shown")
        if self.top_logprobs and not self.logprobs:
            raise errors.InvalidField("top_logprobs needs logprobs", param="top_logprobs")
        if self.options:
            self.options.check()


class OllamaChatBody(OllamaBody, forbid_unknown_fields=True, kw_only=True):
    """What `POST /api/chat` takes."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=1000)] | None = None
    tools: list[dict[str, Any]] | None = None  # to call one is up to the model

    def check(self) -> None:
        """Raise `InvalidField` for what would change the answer, and cannot be done."""
        for place, message in enumerate(self.messages or ()):
            _refuse_given(message, ("images", "tool_calls", "thinking"), f"messages[{place}].")
        super().check()


class OllamaGenerateBody(OllamaBody, forbid_unknown_fields=True, kw_only=True):
    """What `POST /api/generate` takes."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None

    def check(self) -> None:
        """Raise `InvalidField` for what would change the answer, and cannot be done."""
        _refuse_given(self, ("suffix", "template", "context", "images", "width", "height", "steps"))
        if self.raw and self.system:
            raise errors.InvalidField("system: a raw prompt is taken as it is", param="system")
        super().check()


def _refuse_given(body: object, names: Sequence[str], prefix: str = "") -> None:
    """Raise `InvalidField` for a field that is neither null nor empty."""
    for name in names:
        if getattr(body, name):
            raise errors.InvalidField(
                f"{prefix}{name} is not supported",
                param=prefix + name,
                code="unsupported_parameter",
            )


class ShowBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/show` takes."""

    model: str | None = None
    name: str | None = None  # what `model` was called before
    verbose: Ignored = None
    system: Ignored = None
    template: Ignored = None
    options: Ignored = None


class OllamaReply(msgspec.Struct, kw_only=True):
    """What whole replies and lines of a stream have; durations are in nanoseconds.

    All but the last line have no reason for the end, and no counts.
    """

    logprobs: list[TokenLogprob] | UnsetType = UNSET
    done: bool
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaReplyMessage(msgspec.Struct, kw_only=True):
    """A reply's text, or a piece of it."""

    role: Literal["assistant"]
    content: str


# The fields of these two stand before those of `OllamaReply`, as they can be given by position.
class OllamaChatReply(OllamaReply):
    """An answer of /api/chat, whole or as a line."""

    model: str
    created_at: str
    message: OllamaReplyMessage


class OllamaGenerateReply(OllamaReply):
    """An answer of /api/generate, whole or as a line."""

    model: str
    created_at: str
    response: str


class OllamaDetails(msgspec.Struct, kw_only=True):
    """What kind of model it is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(msgspec.Struct, kw_only=True):
    """A model; /api/ps adds the last three fields."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str | UnsetType = UNSET
    size_vram: int | UnsetType = UNSET
    context_length: int | UnsetType = UNSET


class OllamaModels(msgspec.Struct, kw_only=True):
    """The one model that is served, or none while it is not loaded."""

    models: list[OllamaModel]


class OllamaDescription(msgspec.Struct, kw_only=True):
    """What the one model is."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(msgspec.Struct, kw_only=True):
    """The release of Ollama that the routes follow."""

    version: str
