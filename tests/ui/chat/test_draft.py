"""The text being typed: its tokens, and the model that reads along."""

import asyncio

import pytest
from nicegui import ui
from nicegui.testing import User

from tests.ui.fake_functions import (
    Fake,
    both,
    said,
)
from tests.ui.simulated import (
    QUICK,
    Site,
    see,
    see_count,
    send,
    texts,
)
from ui.api.client import FunctionsClient
from ui.chat.draft import MOST_COUNTED
from ui.chat.page import ChatPage
from ui.settings import Settings

pytestmark = pytest.mark.asyncio


async def test_what_is_typed_wakes_the_model_and_is_read_along(user: User, site: Site) -> None:
    site.fake.answers = [said("Hi.")]
    send(user, "Hello")
    await see(user, "Hi.")
    user.find(marker="input").clear()
    user.find(marker="input").type("How are you?")
    await site.fake.wait_for(lambda: len(site.fake.warmed) == 1)
    assert site.fake.warmed[0] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]


async def test_tokens_are_counted_once_for_what_was_typed_last(user: User, site: Site) -> None:
    for text in ("one", " two", " three"):
        user.find(marker="input").type(text)
    await see_count(user, "3 tokens")
    assert site.fake.counted == ["one two three"]


async def test_a_draft_that_is_very_long_is_not_counted(user: User, site: Site) -> None:
    user.find(marker="input").type("a" * (MOST_COUNTED + 1))
    await see_count(user, f"more than {MOST_COUNTED:,} characters")
    user.find(marker="input").clear().type("one")
    await see_count(user, "1 token")
    assert site.fake.counted == ["one"]


async def test_a_late_count_never_overwrites_a_newer_one(user: User, site: Site) -> None:
    site.fake.count_delay = 0.3
    user.find(marker="input").type("one")
    await site.fake.wait_for(lambda: site.fake.counted == ["one"])
    site.fake.count_delay = 0.0
    user.find(marker="input").type(" two")
    await see_count(user, "2 tokens")
    await asyncio.sleep(0.4)  # the first answer is due by now
    assert texts(user, "draft-tokens") == ["2 tokens"]


async def test_a_missing_tokenize_function_is_silent(
    simulation: tuple[User, Site], fake: Fake
) -> None:
    user, site = simulation
    async with both(Fake()) as gone:
        pass
    functions = FunctionsClient(Settings(fake.generate_url, gone.tokenize_url))

    @ui.page("/uncounted")
    async def uncounted() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/uncounted")
    await see(user, "pibloom-demo")
    user.find(marker="input").type("Hello")
    await see_count(user, "– tokens")
    assert not user._sees(marker="banner")
    send(user, "")
    user.find(marker="send").click()
    await see(user, "Hello! I am piBLOOM.")
    await functions.aclose()


async def test_a_count_waits_for_its_function_to_wake(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    functions = FunctionsClient(site.settings, short_s=0.1)
    site.fake.count_delay = 0.3

    @ui.page("/asleep")
    async def asleep() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/asleep")
    await see(user, "pibloom-demo")
    user.find(marker="input").type("Hello")
    await see_count(user, "1 token")
    await functions.aclose()
