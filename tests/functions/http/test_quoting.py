"""What an answer may repeat of a request."""

import pytest

from functions.http.quoting import describe, shortened


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("my secret", "a text of 9 characters"),
        (["my secret"], "a list of 1"),
        ({"my secret": 1}, "an object"),
        (None, "null"),
        (True, "true"),
        (-1.5, "-1.5"),
        (10**80, "1" + "0" * 58 + "…"),
    ],
)
def test_a_value_is_described_and_no_text_repeated(value: object, said: str) -> None:
    assert describe(value) == said


def test_a_long_text_is_cut() -> None:
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 59 + "…"
    assert shortened("abc", 2) == "a…"
