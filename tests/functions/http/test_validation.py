"""A wrong field is answered with a sentence that is made from its type."""

from typing import Any

import pytest

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
