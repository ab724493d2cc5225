"""Fixtures: one chat for all tests of the guard."""

from collections.abc import Iterator

import pytest

from tests.ports import free_port
from tests.ui.bare_browser import Chat, running_silently

LISTED = "https://chat.example"  # an origin that the chat's settings list


@pytest.fixture(scope="package")
def chat() -> Iterator[Chat]:
    """A running chat without functions; when all tests have passed it must have written nothing."""
    with running_silently(free_port(), PIBLOOM_UI_ORIGINS=LISTED) as running_chat:
        yield running_chat
