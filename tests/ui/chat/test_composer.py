"""The input, and the line of counts below it."""

import pytest
from nicegui.testing import User

from tests.ui.fake_functions import halted
from tests.ui.simulated import PATIENCE, Site, draft_of, see, send, texts
from ui.chat import page as page_module

pytestmark = pytest.mark.asyncio


async def test_blank_input_asks_nothing(user: User, site: Site) -> None:
    send(user, "  \n ")
    user.find(marker="send").click()
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert len(site.fake.requests) == 1


async def test_a_running_reply_keeps_the_next_message_in_the_input(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    send(user, "Too early")
    assert draft_of(user) == "Too early"
    assert len(site.fake.requests) == 1


async def test_the_chats_share_of_the_context_is_shown(user: User) -> None:
    await see(user, "Chat 0 / 512")
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    await see(user, "Chat 8 / 512")  # 3 of the prompt and 5 of the reply


async def test_a_chat_that_is_full_takes_no_more(
    user: User, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "CHAT_CHARACTERS", 100)
    send(user, "first " * 10)
    await see(user, "tokens/s")
    send(user, "second " * 10)
    await user.should_see("This chat is full. Start a new one to send this.", retries=PATIENCE)
    assert len(texts(user, "question")) == 1
