"""The sampler draws what transformers' own processors leave, on both engines' logits."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model import load
from model.engine.contract import Logits, Work
from model.names import default_model
from model.sampling import SamplingParams
from model.serving.sampler import Sampler
from model.text.tokenizer import NEVER_DRAWN, Tokenizer

TEXTS = ["The capital of France is", "Dear"]
DRAWS = 200


class Fixed:
    """In place of a random generator: returns a given number."""

    value = 0.0

    def random(self) -> float:
        return self.value


@pytest.fixture(scope="module", params=["native", "reference"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    path = default_model()
    opened = (
        load._open_native(path, 8, 1, 64 << 20)
        if request.param == "native"
        else load._open_reference(path, "float32", "cpu")
    )
    yield opened.engine
    opened.engine.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.open(Path(default_model()))


def expected(values: torch.Tensor, params: SamplingParams) -> dict[int, float]:
    """Probabilities by transformers' processors, in the order of its `generate`."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    none = cast(torch.LongTensor, torch.zeros(1, 0, dtype=torch.long))
    scores = processors(none, cast(torch.FloatTensor, values[None].clone()))
    probabilities = scores.softmax(-1)[0]
    kept = (probabilities > 0).nonzero().flatten().tolist()
    return {id_: float(probabilities[id_]) for id_ in kept}


def drawn(logits: Logits, params: SamplingParams) -> dict[int, float]:
    """The share of draws of each id, with draws spread evenly over [0, 1)."""
    sampler = Sampler(params, [], NEVER_DRAWN)
    chance = Fixed()
    sampler._random = chance  # type: ignore[assignment]
    found: dict[int, float] = {}
    for place in range(DRAWS):
        chance.value = (place + 0.5) / DRAWS
        id_ = sampler._choose(logits)
        found[id_] = found.get(id_, 0.0) + 1 / DRAWS
    return found


CUTS = [
    SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=1
    )
    for temperature, top_k, top_p, min_p in itertools.product(
        (0.7, 1.6), (0, 40), (1.0, 0.9), (0.0, 0.02, 0.3, 1.0)
    )
    if top_k or min_p  # without them there can be more than are ever looked at, `MAX_TOP_K`
]


@pytest.mark.parametrize(
    "params", CUTS, ids=lambda p: f"{p.temperature}-{p.top_k}-{p.top_p}-{p.min_p}"
)
def test_draws_are_what_transformers_processors_leave(
    engine: Any, tokenizer: Tokenizer, params: SamplingParams
) -> None:
    for text in TEXTS:
        sequence = engine.new_sequence()
        (logits,) = engine.forward([Work(sequence, tokenizer.ids(text))])
        values = torch.tensor(logits.at(range(tokenizer.size)))
        values[list(NEVER_DRAWN)] = -torch.inf
        theirs, ours = expected(values, params), drawn(logits, params)
        engine.release(sequence)
        assert set(ours) <= set(theirs)
        for id_, probability in theirs.items():
            assert abs(ours.get(id_, 0.0) - probability) < 2 / DRAWS
