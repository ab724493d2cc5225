"""The fitting of a chat into the model's context."""

from tests.ui.chat.conversations import chat
from ui.chat.context import learn_ratio, leave_out_oldest, shorten


def test_the_oldest_turns_are_left_out_and_the_question_never() -> None:
    long = chat(*["x" * 100] * 5)
    learn_ratio(long, 300)  # what was just sent had 300 tokens
    assert shorten(long, 150)
    assert 0 < long.left_out < 5
    assert long.messages()[-1]["content"] == "now"
    assert shorten(long, 0)
    assert long.messages() == [{"role": "user", "content": "now"}]
    assert not shorten(long, 0)
    assert not leave_out_oldest(long)


def test_what_fits_is_left_alone() -> None:
    short = chat("zero")
    learn_ratio(short, 20)
    assert not shorten(short, 20)
    assert short.left_out == 0
