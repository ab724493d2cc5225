"""The theme."""

import pytest
from nicegui import ui
from nicegui.testing import User

from tests.ui.simulated import see

pytestmark = pytest.mark.asyncio


async def test_the_theme_is_chosen_and_remembered(user: User) -> None:
    user.find(marker="settings").click()
    user.find(marker="theme-dark").click()
    await user.open("/")
    await see(user, "What shall we talk about?")
    with user:
        (mode,) = [e for e in user.current_layout.descendants() if isinstance(e, ui.dark_mode)]
    assert mode.value is True
    response = await user.http_client.get("/")
    assert "html{background:#17131a;color-scheme:dark}" in response.text
