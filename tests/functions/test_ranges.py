"""What a request may ask of sampling, on top of a model's own defaults."""

import pytest

from functions import ranges
from model.sampling import SamplingParams

DEFAULTS = SamplingParams(temperature=0.5, top_k=3)


def test_what_is_not_given_is_the_models() -> None:
    found = ranges.overridden(DEFAULTS, {"temperature": None, "top_p": 0.25})
    assert found == SamplingParams(temperature=0.5, top_k=3, top_p=0.25)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"top_k": -1}, "top_k", 0),
        ({"seed": -1}, "seed", 2**63 - 1),
        ({"seed": -(2**63)}, "seed", 0),
        ({"temperature": 0}, "temperature", 0),
    ],
)
def test_what_other_servers_take_is_taken(given: dict[str, int], field: str, value: int) -> None:
    assert getattr(ranges.overridden(DEFAULTS, given), field) == value


def test_a_top_p_of_zero_leaves_the_likeliest_token_alone() -> None:
    assert 0 < ranges.overridden(DEFAULTS, {"top_p": 0}).top_p < 1e-6
