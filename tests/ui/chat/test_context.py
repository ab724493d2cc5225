"""The fitting of a chat into the model's context."""

import asyncio

from nicegui.testing import User

from tests.ui.chat.conversations import chat
from tests.ui.simulated import (
    Site,
    draft_of,
    see,
    send,
    texts,
)
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


async def test_a_chat_that_outgrows_the_context_loses_its_oldest_turns_and_says_so(
    user: User, site: Site
) -> None:
    site.fake.max_context = 80
    for question in ("first " * 12, "second " * 12, "third " * 12):
        send(user, question)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while len(texts(user, "use-seed")) != len(texts(user, "question")):
                await asyncio.sleep(0.02)
    assert user._sees(marker="left-out")
    await see(user, "no longer fit into the model's memory")
    last = site.fake.requests[-1]["messages"]
    assert "first" not in str(last)
    assert "third" in last[-1]["content"]
    assert len(texts(user, "question")) == 3  # what was left out can still be read


async def test_a_single_message_that_is_too_long_gets_a_sentence_and_can_be_edited(
    user: User, site: Site
) -> None:
    site.fake.max_context = 20
    long = "word " * 40
    send(user, long)
    await see(user, "This message is too long for the model: 42 tokens")
    assert not user._sees(marker="retry")
    user.find(marker="edit").click()
    assert draft_of(user) == long.strip()
    assert texts(user, "question") == []


async def test_a_message_that_is_too_long_pushes_nothing_out(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    site.fake.max_context = 40
    send(user, "word " * 60)
    await see(user, "This message is too long for the model")
    assert not user._sees(marker="left-out")
    send(user, "And you?")
    async with asyncio.timeout(5):
        while len(texts(user, "use-seed")) != 2:
            await asyncio.sleep(0.02)
    contents = [message["content"] for message in site.fake.requests[-1]["messages"]]
    assert contents[0] == "Hello"
    assert contents[-1] == "And you?"
