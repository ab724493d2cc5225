"""Numbers as people read them."""

import pytest

from ui.format import byte_size, compact, plural, seconds, shortened, token_rate


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1024, "1,024 tokens")]
)
def test_a_count_has_its_noun_and_its_commas(count: int, text: str) -> None:
    assert plural(count, "token") == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7"),
        (1_000, "1 thousand"),
        (5_800_000, "5.8 million"),
        (559_214_592, "559.2 million"),
        (176_000_000_000, "176 billion"),
    ],
)
def test_a_large_count_is_said_in_words(count: int, text: str) -> None:
    assert compact(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(900, "0.9 kB"), (23_200_000, "23.2 MB"), (1_118_000_000, "1.1 GB")]
)
def test_bytes_have_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert byte_size(count) == text


@pytest.mark.parametrize(
    ("speed", "text"), [(0.44, "0.4 tokens/s"), (12.34, "12.3 tokens/s"), (45.6, "46 tokens/s")]
)
def test_a_speed_has_the_digits_that_mean_something(speed: float, text: str) -> None:
    assert token_rate(speed) == text


def test_a_duration_has_a_tenth() -> None:
    assert seconds(1.02) == "1.0 s"


def test_a_long_number_loses_its_middle() -> None:
    assert shortened(str(2**63 - 1)) == "9223…5807"
    assert shortened("4711") == "4711"
