"""A wrong field is answered with a sentence that is made from its type."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from functions.errors import InvalidField
from functions.http import validation
from functions.http.quoting import describe
from tests.functions.conftest import Generate


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": 5}, "prompt: Expected a text, but got 5"),
        (
            {"prompt": "a", "temperature": "hot"},
            "Expected a number, but got a text of 3 characters",
        ),
        ({"prompt": "a", "stop": 1}, "stop: Expected a text or a list, but got 1"),
        ({"prompt": "a", "max_new_tokens": 0}, "Expected a whole number >= 1, but got 0"),
        ({"prompt": "a", "stream": "yes"}, "Expected true or false"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]},
            "messages[1].role: Expected 'assistant' or 'system' or 'user', but got a text of 4",
        ),
    ],
)
def test_a_wrong_field_is_told_in_words(generate: Generate, body: Any, said: str) -> None:
    assert said in generate.post(body).json["error"]["message"]


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    count: Annotated[int, Meta(ge=0)] | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    whole: Annotated[int, Meta(ge=1, le=5)] | None = None
    number: Annotated[float, Meta(gt=0, le=1)] | None = None
    flag: bool | None = None
    word: Literal["one", "two"] | None = None
    bits: Literal[4, 8] | None = None
    text: Annotated[str, Meta(min_length=1, max_length=3)] | None = None
    texts: str | Annotated[list[Inner], Meta(min_length=1, max_length=2)] | None = None
    biases: Annotated[dict[str, Annotated[float, Meta(ge=-1, le=1)]], Meta(max_length=2)] = {}
    nested: list[list[int]] | None = None
    anything: Any = None
    nothing: None = None


BOUNDS = [
    ({"whole": 0}, "whole", "Expected a whole number >= 1, but got 0"),
    ({"whole": 6}, "whole", "Expected a whole number <= 5, but got 6"),
    ({"whole": True}, "whole", "Expected a whole number, but got true"),
    ({"whole": 1.5}, "whole", "Expected a whole number, but got 1.5"),
    ({"whole": 2**70}, "whole", f"Expected a whole number <= 5, but got {2**70}"),
    ({"number": 0}, "number", "Expected a number > 0.0, but got 0"),
    ({"number": 2}, "number", "Expected a number <= 1.0, but got 2"),
    ({"number": "a"}, "number", "Expected a number, but got a text of 1 characters"),
    ({"flag": 1}, "flag", "Expected true or false, but got 1"),
    ({"word": "my secret"}, "word", "Expected 'one' or 'two', but got a text of 9 characters"),
    ({"word": 1}, "word", "Expected a text, but got 1"),
    ({"bits": 5}, "bits", "Expected 4 or 8, but got 5"),
    ({"bits": "a"}, "bits", "Expected a whole number, but got a text of 1 characters"),
    ({"text": ""}, "text", "Expected a text of length >= 1, but got a text of 0 characters"),
    ({"text": "long"}, "text", "Expected a text of length <= 3, but got a text of 4 characters"),
    ({"texts": 1}, "texts", "Expected a text or a list, but got 1"),
    ({"texts": []}, "texts", "Expected a list of length >= 1, but got a list of 0"),
    ({"texts": [1]}, "texts[0]", "Expected an object, but got 1"),
    (
        {"texts": [{"kind": "a"}, {"kind": "a", "count": -1}]},
        "texts[1].count",
        "Expected a whole number >= 0, but got -1",
    ),
    ({"biases": []}, "biases", "Expected an object, but got a list of 0"),
    (
        {"biases": {"a": 0, "b": 0, "c": 0}},
        "biases",
        "Expected an object of length <= 2, but got an object",
    ),
    ({"nested": [[1], [2, "a"]]}, "nested[1][1]", "Expected a whole number, but got a text of 1"),
]


def refused(body: object) -> InvalidField:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(body, Outer, strict=True)
    return validation.invalid_field(error.value, body, Outer)


@pytest.mark.parametrize(("body", "param", "said"), BOUNDS)
def test_what_a_field_must_be_is_told_in_words(body: object, param: str, said: str) -> None:
    error = refused(body)
    assert (error.param, error.openai_code) == (param, "invalid_value")
    assert error.message.startswith(f"{param}: {said}")


@pytest.mark.parametrize("value", [2, "a", None, []])
def test_of_an_object_with_free_keys_neither_key_nor_value_is_told(value: object) -> None:
    error = refused({"biases": {"my.secret[0]": 0.5, "my secret": value}})
    assert error.param == "biases"
    bound = " <= 1.0" if value == 2 else ""
    assert error.message == f"biases[...]: Expected a number{bound}"


def test_fields_are_unknown_missing_or_not_supported() -> None:
    for body, param, code in (
        ({"odd": 1}, "odd", "unknown_parameter"),
        ({"texts": [{"odd": 1}]}, "texts[0].odd", "unknown_parameter"),
        ({"texts": [{}]}, "texts[0].kind", "missing_required_parameter"),
        ({"nothing": 1}, "nothing", "unsupported_parameter"),
    ):
        error = refused(body)
        assert (error.param, error.openai_code) == (param, code)
        assert error.message.startswith(f"the field {param} is ")


@pytest.mark.parametrize("body", [5, None, [], "my secret"])
def test_a_body_that_is_no_object_is_told_so(body: object) -> None:
    error = refused(body)
    assert error.param is None
    assert error.message == f"Expected an object, but got {describe(body)}"


def test_a_place_that_cannot_be_read_is_no_failure() -> None:
    """Such as of a release of msgspec that writes places otherwise."""
    error = msgspec.ValidationError("Expected `int` - at `$.whole.of.nowhere`")
    found = validation.invalid_field(error, {"whole": "my secret"}, Outer)
    assert (found.param, found.message) == (
        None,
        "the body is not as /openapi.json describes it",
    )


@given(
    st.dictionaries(
        st.sampled_from([*Outer.__struct_fields__, "odd"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.just("secret"),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["kind", "count", "secret"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_every_refusal_of_msgspecs_is_told_at_its_place_in_our_words(body: Any) -> None:
    """Fails where an upgrade of msgspec writes places otherwise than they are read."""
    try:
        msgspec.convert(body, Outer, strict=True)
    except msgspec.ValidationError as refusal:
        found, theirs = validation.invalid_field(refusal, body, Outer), str(refusal)
        if found.openai_code == "invalid_value" and found.param is not None:
            assert f"`$.{found.param}`" in theirs or f"`$.{found.param}[...]`" in theirs
        assert "not as /openapi.json" not in found.message
        assert "`" not in found.message
        if "secret" not in (found.param or ""):
            assert "secret" not in found.message
