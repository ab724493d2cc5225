"""The page as a whole: what a person types, sees and presses."""

import asyncio

import pytest
from nicegui.testing import User

from tests.ui.fake_functions import (
    halted,
    said,
)
from tests.ui.simulated import (
    Site,
    draft_of,
    prose,
    see,
    see_no,
    send,
    texts,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


async def test_open_type_and_see_the_reply(user: User, site: Site) -> None:
    send(user, "Hello there")
    await see(user, "Hello! I am piBLOOM.")
    await see(user, "12.3 tokens/s")
    assert texts(user, "question") == ["Hello there"]
    assert draft_of(user) == ""
    assert site.fake.requests[0]["messages"] == [{"role": "user", "content": "Hello there"}]
    await see_no(user, "What shall we talk about?")


async def test_the_second_question_carries_the_first_turn(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    send(user, "And now a story")
    await see(user, "Once upon a time")
    assert [m["role"] for m in site.fake.requests[1]["messages"]] == ["user", "assistant", "user"]


async def test_stop_keeps_what_is_there_and_ends_the_generation(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half of a reply")]
    send(user, "Hello")
    await see(user, "Half of a reply")
    user.find(marker="stop").click()
    await see(user, "Stopped")
    await site.fake.wait_for(lambda: site.fake.left == 1)
    assert "Half of a reply" in prose(user)
    send(user, "Hello again")
    await see(user, "Hello! I am piBLOOM.")


async def test_stop_before_the_first_step_of_a_reply(user: User, site: Site) -> None:
    (page,) = site.tabs.pages.values()
    with user:
        page.send("Hello")
        page.stop()  # both events came in one packet
    await see(user, "Stopped")
    await see_no(user, "Asking…")
    send(user, "Hello again")
    await see(user, "Hello! I am piBLOOM.")


async def test_another_attempt_right_after_stop_shows_nothing_of_the_first(
    user: User, site: Site
) -> None:
    site.fake.answers = [halted("The first reply"), said("The second one")]
    send(user, "Hello")
    await see(user, "The first")
    (page,) = site.tabs.pages.values()
    with user:
        page.stop()
        page.again()
    await see(user, "The second one")
    await see(user, "12.3 tokens/s")
    assert "first" not in prose(user)


async def test_a_finished_reply_is_read_out_once_and_its_running_one_is_busy(
    user: User, site: Site
) -> None:
    gate = asyncio.Event()
    site.fake.answers = [halted("Slow words", gate)]
    send(user, "Hello")
    await see(user, "Slow words")
    (reply,) = user.find(marker="reply").elements
    (said_,) = user.find(marker="said").elements
    assert reply.props["aria-busy"] == "true"
    assert said_.props["aria-live"] == "polite"
    assert "Slow words" not in texts(user, "said")[0]
    gate.set()
    await see(user, "12.3 tokens/s")
    assert reply.props["aria-busy"] == "false"
    assert texts(user, "said")[0].startswith("Slow words")
