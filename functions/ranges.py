"""The ranges of what a request, or the command line, may ask of sampling."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

from msgspec import Meta

from model.sampling import SamplingParams

MOST_STOPS = 8
MOST_TOKENS = 4096  # of one reply

NewTokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
Temperature = Annotated[float, Meta(ge=0, le=5)]
TopK = Annotated[int, Meta(ge=-1, le=1000)]  # 0 and -1 exclude no token
TopP = Annotated[float, Meta(gt=0, le=1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Meta(ge=0.5, le=5)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(max_length=64)]  # an empty one stops nothing
Stops = Annotated[list[Stop], Meta(max_length=MOST_STOPS)]

_NAMES = frozenset(field.name for field in fields(SamplingParams))


def overridden(defaults: SamplingParams, given: Mapping[str, Any]) -> SamplingParams:
    """Return a model's sampling parameters with those that a request gives in their place.

    A value of None counts as not given; names that are not fields of `SamplingParams` are ignored.
    """
    found = {name: value for name, value in given.items() if name in _NAMES and value is not None}
    if found.get("top_p") == 0:
        found["top_p"] = 1e-9  # OpenAI takes 0 and uses a tiny value: the likeliest token alone
    if found.get("top_k") == -1:
        found["top_k"] = 0  # as other servers write it
    if "seed" in found:
        found["seed"] %= 2**63  # the sampler takes no negative seed
    return replace(defaults, **found)
