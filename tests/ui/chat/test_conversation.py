"""A chat as data: what is sent of it, and how it is stored."""

from tests.ui.chat.conversations import chat
from ui.chat.conversation import Conversation, Reply, Turn


def test_all_turns_are_sent_in_order_and_the_question_last() -> None:
    assert chat("zero", "one").messages() == [
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "zero"},
        {"role": "user", "content": "question 1"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "now"},
    ]


def test_a_turn_without_a_reply_is_not_sent() -> None:
    assert [m["content"] for m in chat("", "one").messages()] == ["question 1", "one", "now"]


def test_a_stored_chat_comes_back_equal() -> None:
    before = chat("zero", "one")
    before.turns[-1].reply = Reply("cut", "stopped", tokens=1, seed=2**62, problem="why")
    before.left_out = 1
    assert Conversation.load(before.dump()) == before


def test_a_reply_that_was_running_when_it_was_stored_comes_back_stopped() -> None:
    running = Conversation([Turn("now", Reply(text="half"))])
    reply = Conversation.load(running.dump()).turns[0].reply
    assert (reply.text, reply.state) == ("half", "stopped")


def test_the_chats_size_is_what_the_model_counted_last() -> None:
    counted = chat("zero")
    counted.turns[0].reply.prompt_tokens, counted.turns[0].reply.tokens = 9, 5
    assert counted.tokens == 14
