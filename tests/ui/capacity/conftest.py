"""Fixtures: a chat that no other test opens pages of."""

from collections.abc import Iterator

import pytest

from tests.ports import free_port
from tests.ui.bare_browser import Chat, running_silently


@pytest.fixture(scope="package")
def chat() -> Iterator[Chat]:
    """A running chat without functions; when all tests have passed it must have written nothing."""
    with running_silently(free_port()) as running_chat:
        yield running_chat
