"""The sampling options: their limits, and seeds as text."""

import math

import pytest

from ui.preferences.options import MAX_SEED, NUMBER_OPTIONS, NumberOption, read_seed

OPTIONS = {option.name: option for option in NUMBER_OPTIONS}


@pytest.mark.parametrize("option", NUMBER_OPTIONS, ids=lambda option: option.name)
def test_an_option_takes_its_limits_and_nothing_beyond(option: NumberOption) -> None:
    assert option.accept(option.low) == option.low
    assert option.accept(option.high) == option.high
    for bad in (option.low - 1, option.high + 1, math.nan, math.inf, None, "1", True):
        assert option.accept(bad) is None


def test_a_whole_option_takes_whole_numbers() -> None:
    assert OPTIONS["top_k"].accept(40.4) == 40
    assert OPTIONS["temperature"].accept(0.123) == 0.12


@pytest.mark.parametrize(
    ("text", "seed"), [("", None), (None, None), (" 7 ", 7), ("0", 0), (str(MAX_SEED), MAX_SEED)]
)
def test_a_seed_is_read_from_text(text: str | None, seed: int | None) -> None:
    assert read_seed(text) == seed


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "٣", str(MAX_SEED + 1)])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        read_seed(text)
