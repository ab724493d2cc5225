"""Sentences for people: none is empty, and an unknown refusal keeps the function's own words."""

from ui.api import sentences


def test_an_unknown_refusal_keeps_its_own_words() -> None:
    assert sentences.refused("invalid_field", "top_k is too large.", None) == "top_k is too large."
    assert sentences.refused("internal", "KeyError: 7", None) == (
        "Something went wrong inside the model's function."
    )


def test_a_full_queue_says_when_to_try_again() -> None:
    assert sentences.refused("overloaded", "", 3).endswith("Try again in 3 s.")
    assert "Try again" not in sentences.refused("overloaded", "", None)


def test_a_message_that_is_too_long_says_how_long_it_is_and_may_be() -> None:
    assert sentences.message_too_long(2100, 2048) == (
        "This message is too long for the model: 2,100 tokens, and it reads fewer than 2,048 at a"
        " time. Shorten it to send it."
    )
