"""What piBLOOM's own routes take, `/`, `/chat/` and `/warm`, and what they answer."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from functions import errors, ranges
from functions.generate.fields import NonEmptyText
from functions.generate.sampling import SamplingFields
from functions.generate.timings import Timings
from functions.service import State
from model.load import ModelInfo
from model.serving.events import FinishReason


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a conversation; only the user's must not be empty."""

    role: Literal["system", "user", "assistant"]
    content: str | None


Messages = Annotated[list[Message], Meta(min_length=1, max_length=1000)]


class GenerateBody(SamplingFields, forbid_unknown_fields=True, kw_only=True):
    """What `POST /` takes: a prompt to continue, or messages to answer."""

    prompt: NonEmptyText | None = None
    messages: Messages | None = None
    max_new_tokens: ranges.NewTokens | None = None
    stop: ranges.Stop | ranges.Stops | None = None
    stream: bool | None = None

    def check(self) -> None:
        """Raise `InvalidField` unless there is either a prompt or messages that can be answered."""
        if (self.prompt is None) == (self.messages is None):
            raise errors.InvalidField(
                "exactly one of prompt and messages is needed", param="prompt"
            )
        check_messages(self.messages)


class ChatBody(msgspec.Struct):
    """What `POST /chat/` takes, as the older stack did: a number is its text."""

    content: str | int | float | bool


class WarmBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `POST /warm` takes: nothing, or what is being typed."""

    prompt: NonEmptyText | None = None
    messages: Messages | None = None

    def check(self) -> None:
        """Raise `InvalidField` for both, or for messages that could not be answered."""
        if self.prompt is not None and self.messages is not None:
            raise errors.InvalidField("only one of prompt and messages is taken", param="prompt")
        check_messages(self.messages)


def check_messages(messages: list[Message] | None) -> None:
    """Raise `InvalidField` for an empty message of the user."""
    for place, message in enumerate(messages or ()):
        if message.role == "user" and not message.content:
            name = f"messages[{place}].content"
            raise errors.InvalidField(f"{name}: what the user says is empty", param=name)


class Root(msgspec.Struct, kw_only=True):
    """What is served; `model` is null until it is loaded."""

    service: Literal["generate"]
    version: str
    state: State
    model: ModelInfo | None


class Usage(msgspec.Struct, kw_only=True):
    """How many tokens were read and written.

    `cached_tokens` of the prompt's tokens were known from earlier requests.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class Generated(msgspec.Struct, kw_only=True):
    """A whole reply; the stream's event `done` holds the same."""

    text: str
    finish_reason: FinishReason
    model: str
    seed: int
    usage: Usage
    timings: Timings


class ChatAnswer(msgspec.Struct):
    """A reply of the older stack's route."""

    data: str


class Warmed(msgspec.Struct, kw_only=True):
    """How far a function is awake, and what it read of a prompt."""

    state: State
    prompt_tokens: int
    cached_tokens: int


class LoadingStatus(msgspec.Struct, tag_field="state", tag="loading"):
    """The model is being loaded."""


class QueuedStatus(msgspec.Struct, tag_field="state", tag="queued"):
    """The request waits for a place; position 1 is the next."""

    position: int


class PrefillStatus(msgspec.Struct, tag_field="state", tag="prefill"):
    """The model has read `done` of the prompt's `total` tokens."""

    done: int
    total: int


class GeneratingStatus(msgspec.Struct, tag_field="state", tag="generating"):
    """The first token was drawn."""


class TokenEvent(msgspec.Struct):
    """A piece of the reply, its index, and how many tokens were drawn so far."""

    text: str
    index: int
    tokens: int
