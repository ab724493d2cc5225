"""What survives a reload."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import draft_of, see, send

pytestmark = pytest.mark.asyncio


async def test_history_and_draft_survive_a_reload(user: User) -> None:
    send(user, "Hello there")
    await see(user, "12.3 tokens/s")
    user.find(marker="input").type("not sent yet")
    await user.open("/")
    await see(user, "Hello there")
    await see(user, "Hello! I am piBLOOM.")
    await see(user, "seed 4711")
    assert draft_of(user) == "not sent yet"
