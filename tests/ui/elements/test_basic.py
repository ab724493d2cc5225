"""Words, icons and buttons."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import see, send

pytestmark = pytest.mark.asyncio


async def test_every_bare_button_has_a_name(user: User) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    buttons = [e for e in user.current_layout.descendants() if e.tag == "button"]
    assert len(buttons) > 8
    for button in buttons:
        words = [getattr(child, "text", "") for child in button.descendants()]
        assert button.props.get("aria-label") or any(words)
