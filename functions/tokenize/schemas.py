"""What the routes of `tokenize` take, and what they answer."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from functions.service import State
from model.baked.card import ModelCard


class TokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /` takes."""

    text: str


class DetokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /detokenize` takes."""

    ids: list[Annotated[int, msgspec.Meta(ge=0)]]


class Tokens(msgspec.Struct, kw_only=True):
    """A text's tokens; offsets are in characters: a token's first, and the one past its last."""

    ids: list[int]
    pieces: list[str]
    offsets: list[tuple[int, int]]
    count: int


class Text(msgspec.Struct, kw_only=True):
    """What tokens say."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Vocabulary(ModelCard):
    """The card of the model whose tokenizer this is, and how many entries that has."""

    vocab_size: int


class Root(msgspec.Struct, kw_only=True):
    """What is served; `model` is null until it is loaded."""

    service: Literal["tokenize"]
    version: str
    state: State
    model: Vocabulary | None
