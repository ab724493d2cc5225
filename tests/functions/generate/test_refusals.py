"""Refusals name the field, show a bounded value, and leave optional tools alone."""

from typing import Any

import pytest

from functions.errors import InvalidField
from functions.generate.refusals import check_tool_choice, missing, quoted, unsupported


def test_a_refusal_has_the_field_and_the_value() -> None:
    with pytest.raises(InvalidField, match='n {"a":1} is not supported; because') as refused:
        unsupported("n", {"a": 1}, "because")
    assert (refused.value.param, refused.value.openai_code) == ("n", "unsupported_value")
    with pytest.raises(InvalidField, match="the field n is missing") as refused:
        missing("n")
    assert refused.value.openai_code == "missing_required_parameter"


def test_a_long_value_is_cut() -> None:
    assert quoted("a" * 60) == "a" * 60
    assert quoted("a" * 1000) == "a" * 59 + "…"
    assert len(quoted(["a" * 1000])) == 60


@pytest.mark.parametrize(
    "choice",
    [
        None,
        "auto",
        "none",
        "",
        {"type": "auto"},
        {"type": "allowed_tools", "mode": "auto"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
    ],
)
def test_tools_that_may_be_called_are_left_alone(choice: Any) -> None:
    check_tool_choice(choice)


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, "f"),
        ({"type": "custom", "custom": {"name": "f"}}, "f"),
        ({"type": "function", "name": "f"}, "f"),
        ({"type": "web_search"}, '{"type":"web_search"}'),
    ],
)
def test_a_tool_that_must_be_called_is_refused(choice: Any, shown: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_tool_choice(choice)
    assert refused.value.message.startswith(f"tool_choice {shown} is not supported")
