"""A chat that was cleared can be brought back."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import Site, see, send

pytestmark = pytest.mark.asyncio


async def test_a_new_chat_is_empty_and_can_be_undone(user: User, site: Site) -> None:
    send(user, "Hello there")
    await see(user, "12.3 tokens/s")
    user.find(marker="new-chat").click()
    await see(user, "What shall we talk about?")
    await user.should_not_see("Hello there")
    user.find(marker="undo").click()
    await see(user, "Hello there")
    user.find(marker="new-chat").click()
    send(user, "Another")
    await see(user, "Once upon a time")
    assert len(site.fake.requests[1]["messages"]) == 1
