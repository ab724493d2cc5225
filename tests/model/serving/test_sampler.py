"""The sampler against a plain implementation that sorts the whole vocabulary."""

import math
import random
from collections import Counter
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.sampling import MAX_TOP_K, SamplingParams
from model.serving.sampler import Sampler


class ListLogits:
    """Logits in a list, by the plainest code that meets the contract."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)
        self.asked = 0

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        self.asked = max(self.asked, count)
        kept = [pair for pair in enumerate(self.values) if pair[0] not in without]
        return sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:count]

    def at(self, ids: Sequence[int]) -> list[float]:
        return [self.values[id_] for id_ in ids]

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        kept = [value / temperature for id_, value in enumerate(self.values) if id_ not in without]
        if not kept:
            return -math.inf
        largest = max(kept)
        return largest + math.log(math.fsum(math.exp(value - largest) for value in kept))


def plain_probabilities(
    values: Sequence[float], params: SamplingParams, seen: Collection[int], never: Collection[int]
) -> dict[int, float]:
    """The distribution that transformers' processors would leave."""
    scores = {}
    for id_, value in enumerate(values):
        if id_ in never:
            continue
        if id_ in seen:
            penalty = params.repetition_penalty
            value = value / penalty if value > 0 else value * penalty
        scores[id_] = value / params.temperature
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    if params.top_k:
        ranked = ranked[: params.top_k]
    total = math.fsum(math.exp(score) for _, score in ranked)
    kept: dict[int, float] = {}
    for id_, score in ranked:
        if score < ranked[0][1] + math.log(params.min_p or 1e-300):
            break
        kept[id_] = math.exp(score) / total
        if sum(kept.values()) >= params.top_p:
            break
    mass = sum(kept.values())
    return {id_: probability / mass for id_, probability in kept.items()}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1, seed=1),
        SamplingParams(temperature=0.7, top_k=5, top_p=1, repetition_penalty=1, seed=2),
        SamplingParams(temperature=1.5, top_k=0, top_p=0.6, repetition_penalty=1, seed=3),
        SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1.8, seed=4),
        SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=0.6, seed=4),
        SamplingParams(temperature=0.9, top_k=7, top_p=0.8, repetition_penalty=1.3, seed=5),
        SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0.1, repetition_penalty=1.3, seed=6),
        SamplingParams(temperature=2, top_k=9, top_p=0.9, min_p=0.3, repetition_penalty=1, seed=7),
    ],
    ids=str,
)
def test_draws_follow_the_plain_distribution(params: SamplingParams) -> None:
    rng = random.Random(7)
    logits = ListLogits([rng.gauss(0, 2) for _ in range(30)])
    seen, never, draws = [2, 3, 5, 7, 11], {0, 1}, 20_000
    expected = plain_probabilities(logits.values, params, seen, never)
    sampler = Sampler(params, seen, never)
    counts = Counter(sampler._choose(logits) for _ in range(draws))
    assert set(counts) <= set(expected)
    for id_, probability in expected.items():
        spread = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[id_] / draws - probability) < 5 * spread + 1e-9


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-20, 20), min_size=8, max_size=300),
    penalty=st.floats(0.5, 3),
    seen=st.sets(st.integers(0, 7)),
)
def test_greedy_is_the_largest_penalized_logit(
    values: list[float], penalty: float, seen: set[int]
) -> None:
    never = {1, 3}
    params = SamplingParams(temperature=0, repetition_penalty=penalty)
    token = Sampler(params, seen, never).next(ListLogits(values))

    def score(id_: int) -> float:
        value = values[id_]
        if id_ not in seen or penalty == 1:
            return value
        return value / penalty if value > 0 else value * penalty

    assert token not in never
    assert score(token) == max(score(id_) for id_ in range(len(values)) if id_ not in never)


@pytest.mark.parametrize("temperature", [0.0, 1e-310, 1e-300, 1e-7, 1e-4])
@pytest.mark.parametrize("top_k", [0, 40])
def test_the_coldest_temperatures_take_the_likeliest_token(temperature: float, top_k: int) -> None:
    logits = ListLogits([1.0, 5.0, 4.0, -2.0])
    params = SamplingParams(temperature=temperature, top_k=top_k, repetition_penalty=1, seed=1)
    assert {Sampler(params, []).next(logits) for _ in range(5)} == {1}


def test_same_seed_same_tokens_and_another_seed_others() -> None:
    rng = random.Random(1)
    steps = [ListLogits([rng.gauss(0, 1) for _ in range(1000)]) for _ in range(40)]

    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(seed=seed), [5, 6])
        return [sampler.next(logits) for logits in steps]

    assert draw(1) == draw(1) != draw(2)


def test_unseeded_draws_report_a_seed_that_repeats_them() -> None:
    logits = ListLogits([0.0] * 500)
    first = Sampler(SamplingParams(), [])
    again = Sampler(SamplingParams(seed=first.seed), [])
    assert [first.next(logits) for _ in range(20)] == [again.next(logits) for _ in range(20)]


def test_repetition_penalty_counts_the_reply_too() -> None:
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=2), [])
    logits = ListLogits([0.0, 4.0, 3.0])
    assert [sampler.next(logits), sampler.next(logits)] == [1, 2]


def test_a_peaked_distribution_asks_for_few_candidates() -> None:
    logits = ListLogits([20.0, *([0.0] * 5000)])
    Sampler(SamplingParams(top_k=0, top_p=0.9, repetition_penalty=1), []).next(logits)
    assert logits.asked < 200


def test_min_p_asks_for_few_candidates() -> None:
    logits = ListLogits([20.0, 19.0, *([0.0] * 5000)])
    params = SamplingParams(top_k=0, top_p=1, min_p=0.1, repetition_penalty=1, temperature=1)
    sampler = Sampler(params, [])
    assert {sampler.next(logits) for _ in range(50)} == {0, 1}
    assert logits.asked < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.01),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})  # type: ignore[arg-type]


def test_presence_and_frequency_count_what_was_written() -> None:
    params = SamplingParams(
        temperature=0, repetition_penalty=1, presence_penalty=0.5, frequency_penalty=1.0
    )
    sampler = Sampler(params, prompt=[0, 1])
    logits = ListLogits([3.0, 2.0, 1.0])
    # 3.0, then 3 - 0.5 - 1 = 1.5 against 2, then 2 - 1.5 = 0.5 against 1.5, then 0 against 1 …
    assert [sampler.next(logits) for _ in range(4)] == [0, 1, 0, 2]


def test_a_bias_lifts_and_bans() -> None:
    lifted = SamplingParams(temperature=0, repetition_penalty=1, logit_bias=((2, 10.0),))
    assert Sampler(lifted, prompt=[]).next(ListLogits([3.0, 2.0, 1.0])) == 2
    banned = SamplingParams(temperature=1, top_k=0, top_p=1, logit_bias=((0, -100.0),), seed=1)
    sampler = Sampler(banned, prompt=[])
    assert all(sampler.next(ListLogits([30.0, 2.0, 1.0])) != 0 for _ in range(100))


def test_greedy_asks_for_one_and_top_k_for_k() -> None:
    logits = ListLogits([float(value) for value in range(1000)])
    Sampler(SamplingParams(temperature=0, repetition_penalty=1), prompt=[]).next(logits)
    assert logits.asked == 1
    Sampler(SamplingParams(top_k=40, repetition_penalty=1), prompt=[]).next(logits)
    assert logits.asked == 40


def test_the_hottest_draw_looks_at_a_bounded_number_of_tokens() -> None:
    """One request must not make everybody's step long: BLOOM's vocabulary has 250,000 tokens."""
    asked: list[int] = []

    class Flat:
        def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
            asked.append(count)
            return [(id_, 0.0) for id_ in range(count)]

        def at(self, ids: Sequence[int]) -> list[float]:
            return [0.0] * len(ids)

        def logsumexp(self, temperature: float, without: Collection[int]) -> float:
            return math.log(250_000)

    sampler = Sampler(SamplingParams(temperature=5, top_k=0, top_p=1, seed=1), prompt=[1])
    drawn = [sampler.next(Flat()) for _ in range(300)]
    assert max(asked) == MAX_TOP_K
    assert min(drawn) < 100
    assert max(drawn) > MAX_TOP_K - 100
    assert len(set(drawn)) > 200
