"""`pibloom generate`: its flags, and what it writes."""

import json
from typing import get_args

import pytest
from click.testing import CliRunner

from cli.main import pibloom as commands
from functions import ranges
from tests.cli.commands import GREEDY, pibloom
from tests.functions.conftest import Generate


def test_generate_streams_the_same_text_as_its_json() -> None:
    text = pibloom("generate", "--chat", "Hello", *GREEDY).stdout
    reply = json.loads(pibloom("generate", "--chat", "--json", *GREEDY, stdin="Hello").stdout)
    assert reply["text"] + "\n" == text
    assert reply["usage"]["completion_tokens"] <= 12


RANGES = {
    "max_new_tokens": ranges.NewTokens,
    "temperature": ranges.Temperature,
    "top_k": ranges.TopK,
    "top_p": ranges.TopP,
    "min_p": ranges.MinP,
    "repetition_penalty": ranges.RepetitionPenalty,
    "seed": ranges.Seed,
}


@pytest.mark.parametrize("name", RANGES)
def test_the_ranges_are_those_of_the_function(name: str, generate: Generate) -> None:
    """At each bound and beside it, by what the function itself says of a body with the value."""
    kind, limits = get_args(RANGES[name])
    step = 1 if kind is int else 1e-6
    low = limits.ge if limits.gt is None else limits.gt
    for value in (low - step, low, low + step, limits.le - step, limits.le, limits.le + step):
        status = generate.post({"prompt": "a", name: value}).status_code
        assert status in (200, 422)
        flag = f"--{name.replace('_', '-')}={value!r}"
        done = CliRunner().invoke(commands, ["generate", "", flag])
        # What gets as far as the empty prompt has passed.
        assert ("the prompt is empty" in done.output) == (status == 200), (flag, done.output)


def test_every_field_of_the_function_has_its_flag(generate: Generate) -> None:
    document = generate.client.get("/openapi.json").json
    fields = document["components"]["schemas"]["GenerateBody"]["properties"]
    flags = pibloom("generate", "--help").stdout
    for name in set(fields) - {"prompt", "messages", "stream"}:
        assert "--" + name.replace("_", "-") in flags
