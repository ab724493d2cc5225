"""A chat as data: what is sent of it, and what is left out when it outgrows the context."""

from ui.conversation import Conversation, Reply, Turn


def chat(*replies: str) -> Conversation:
    turns = [
        Turn(f"question {i}", Reply(text=text, state="done")) for i, text in enumerate(replies)
    ]
    return Conversation([*turns, Turn("now")])


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


def test_the_oldest_turns_are_left_out_and_the_question_never() -> None:
    long = chat(*["x" * 100] * 5)
    long.learn(300)  # what was just sent had 300 tokens
    assert long.make_room(150)
    assert 0 < long.left_out < 5
    assert long.messages()[-1]["content"] == "now"
    assert long.make_room(0)
    assert long.messages() == [{"role": "user", "content": "now"}]
    assert not long.make_room(0)
    assert not long.leave_out_one()


def test_what_fits_is_left_alone() -> None:
    short = chat("zero")
    short.learn(20)
    assert not short.make_room(20)
    assert short.left_out == 0


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
