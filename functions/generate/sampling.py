"""The sampling fields of requests, and the parameters that follow from them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from functions import errors, ranges
from model.load import LoadedModel
from model.sampling import SamplingParams
from model.text.tokenizer import NEVER_DRAWN

Penalty = Annotated[float, Meta(ge=-2, le=2)]
LogitBias = Annotated[float, Meta(ge=-100, le=100)]


class SamplingFields(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The sampling fields of all routes; one that is null has the checkpoint's default, or ours.

    Each is called as it is in `SamplingParams`.
    """

    temperature: ranges.Temperature | None = None
    top_k: ranges.TopK | None = None
    top_p: ranges.TopP | None = None
    min_p: ranges.MinP | None = None
    repetition_penalty: ranges.RepetitionPenalty | None = None
    seed: ranges.Seed | None = None


class OpenAISamplingFields(SamplingFields, forbid_unknown_fields=True, kw_only=True):
    """The sampling fields of OpenAI's and Ollama's routes: OpenAI's own and those of all routes."""

    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None  # OpenAI takes 0 as well
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, LogitBias], Meta(max_length=300)] | None = None


def sampling_params(model: LoadedModel, asked: SamplingFields) -> SamplingParams:
    """Return the model's defaults, overridden by what a request asks for.

    Raises `InvalidField` for a `logit_bias` of a token that does not exist or is never drawn.
    """
    given: dict[str, Any] = {name: getattr(asked, name) for name in asked.__struct_fields__}
    if "logit_bias" in given:
        given["logit_bias"] = tuple(_biases(model, given["logit_bias"] or {})) or None
    return ranges.overridden(model.sampling, given)


def _biases(model: LoadedModel, biases: Mapping[str, float]) -> Iterator[tuple[int, float]]:
    for key, bias in biases.items():
        id_ = int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else -1
        if not 0 <= id_ < model.tokenizer.size or id_ in NEVER_DRAWN:
            raise errors.InvalidField(
                "logit_bias: each key must be the id of a token that can be drawn, below"
                f" {model.tokenizer.size}",
                param="logit_bias",
            )
        yield id_, bias


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the strings at which a reply ends, of one, several or none."""
    found = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return tuple(each for each in found if each)
