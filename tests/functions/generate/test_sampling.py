"""The sampling fields of requests are those of the sampler."""

import dataclasses
from typing import Any

import pytest

from functions.errors import InvalidField
from functions.generate.native.schemas import GenerateBody
from functions.generate.ollama.schemas import OllamaOptions
from functions.generate.openai.schemas import ChatCompletionBody, CompletionBody
from functions.generate.responses.schemas import ResponseBody
from functions.generate.sampling import (
    OpenAISamplingFields,
    SamplingFields,
    sampling_params,
    stop_strings,
)
from model.sampling import SamplingParams
from tests.functions.conftest import Generate

NAMES = {field.name for field in dataclasses.fields(SamplingParams)}


def test_each_field_is_one_of_the_sampler() -> None:
    assert set(SamplingFields.__struct_fields__) < NAMES
    assert set(OpenAISamplingFields.__struct_fields__) == NAMES


@pytest.mark.parametrize(
    "body", [GenerateBody, CompletionBody, ChatCompletionBody, ResponseBody, OllamaOptions]
)
def test_every_body_has_them_from_there(body: type[SamplingFields]) -> None:
    own = body.__annotations__.keys()
    assert not own & NAMES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.5, "top_k": 7, "seed": 3}, {"temperature": 0.5, "top_k": 7, "seed": 3}),
        ({"logit_bias": {}}, {}),
        ({"logit_bias": {"50": 5.0}}, {"logit_bias": ((50, 5.0),)}),
    ],
)
def test_what_is_asked_for_overrides_the_models_defaults(
    generate: Generate, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    model = generate.service.get()
    found = sampling_params(model, OpenAISamplingFields(**given))
    assert found == dataclasses.replace(model.sampling, **expected)


@pytest.mark.parametrize("key", ["-1", "x", "3", "99999"])
def test_a_bias_is_for_a_token_that_can_be_drawn(generate: Generate, key: str) -> None:
    with pytest.raises(InvalidField, match="logit_bias"):
        sampling_params(generate.service.get(), OpenAISamplingFields(logit_bias={key: 1}))


@pytest.mark.parametrize(
    ("stop", "strings"),
    [(None, ()), ("", ()), ("a", ("a",)), (["a", "", "b"], ("a", "b")), ([], ())],
)
def test_stop_strings_are_one_several_or_none(stop: Any, strings: tuple[str, ...]) -> None:
    assert stop_strings(stop) == strings
