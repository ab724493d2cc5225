"""A function that is away: what the page says, and how it goes on afterwards."""

import asyncio

import pytest
from nicegui import ui
from nicegui.testing import User

from tests.ui.fake_functions import (
    Answer,
    Fake,
    both,
)
from tests.ui.simulated import (
    QUICK,
    Site,
    draft_of,
    see,
    see_no,
    send,
    texts,
)
from ui.api.client import FunctionsClient
from ui.chat.page import ChatPage
from ui.settings import Settings

pytestmark = pytest.mark.asyncio


async def test_a_function_that_is_down_is_waited_for_and_then_the_chat_goes_on(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    await user.open("/")
    await see(user, "pibloom-demo")
    # The function goes away: a request is refused where it was answered before.
    site.fake.answers = [Answer(status=503, body="no healthy upstream")]
    site.fake.ready = False
    send(user, "Are you there?")
    await see(user, "Your text is kept")
    await see(user, "Retry")
    assert texts(user, "question") == ["Are you there?"]
    asked = len(site.fake.requests)
    site.fake.ready = True
    await see(user, "The model is back.")
    await see(user, "Once upon a time")
    assert len(site.fake.requests) == asked + 1
    assert texts(user, "question") == ["Are you there?"]
    await see_no(user, "The model is back.")


async def test_a_page_opened_while_the_function_is_down_says_so_and_recovers(
    simulation: tuple[User, Site], fake: Fake
) -> None:
    user, site = simulation
    async with both(Fake()) as gone:
        port = int(gone.generate_url.rpartition(":")[2])
    functions = FunctionsClient(Settings(gone.generate_url, fake.tokenize_url))

    @ui.page("/down")
    async def down() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/down")
    await see(user, "The generate function cannot be reached.")
    await see(user, "Offline")
    user.find(marker="input").type("Do not lose me")
    send_text = draft_of(user)
    user.find(marker="send").click()
    await see(user, "Retry")
    async with both(Fake(), port):
        await see(user, "The model is back.")
        await see(user, "Once upon a time")
        assert texts(user, "question") == [send_text] == ["Do not lose me"]
        for page in list(site.tabs.pages.values()):
            page.leave()
        await functions.aclose()


async def test_a_reply_that_never_begins_is_asked_for_again(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    functions = FunctionsClient(site.settings, idle_s=0.3)

    @ui.page("/impatient")
    async def impatient() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/impatient")
    await see(user, "pibloom-demo")
    site.fake.answers = [Answer([asyncio.Event()])]
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert len(site.fake.requests) == 2
    await functions.aclose()
