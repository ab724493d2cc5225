"""The chat in a simulated browser: a running site, and what a person does and sees on it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from nicegui import ui
from nicegui.testing import User

from tests.ui.fake_functions import Fake
from ui.chat.page import ChatPage
from ui.chat.tabs import Tabs
from ui.chat.timing import Timing
from ui.settings import Settings

PATIENCE = 60  # tries of should_see, a tenth of a second each

QUICK = Timing(
    text_update=0.01,
    count_after=0.02,
    warm_after=0.05,
    clock_update=0.05,
    waking_after=0.2,
    first_recheck=0.05,
    longest_recheck=0.1,
    notice=0.4,
)


@dataclass
class Site:
    """A running chat: its fake functions, its tabs, and a way to open another browser."""

    fake: Fake
    tabs: Tabs[ChatPage]
    settings: Settings
    new_user: Callable[[], User]


def send(user: User, text: str) -> None:
    """Type a message and press Enter."""
    user.find(marker="input").type(text).trigger("keydown", text)


async def see(user: User, what: str) -> None:
    """Wait until the page shows these words."""
    await user.should_see(what, retries=PATIENCE)


async def see_no(user: User, what: str) -> None:
    """Wait until the page does not show these words."""
    await user.should_not_see(what, retries=PATIENCE)


def draft_of(user: User) -> str:
    """Return what is written in the input."""
    (element,) = user.find(marker="input").elements
    assert isinstance(element, ui.textarea)
    return element.value or ""


async def see_count(user: User, what: str) -> None:
    """Wait until the count below the input says this."""
    async with asyncio.timeout(5):
        while texts(user, "draft-tokens") != [what]:
            await asyncio.sleep(0.02)


def texts(user: User, marker: str) -> list[str]:
    """Return what the visible elements with a marker say, in the page's order."""
    with contextlib.suppress(AssertionError):
        found = user.find(marker=marker).elements
        return [getattr(element, "text", "") for element in sorted(found, key=lambda e: e.id)]
    return []


def prose(user: User) -> str:
    """Return the HTML of the last reply."""
    element = max(user.find(marker="prose").elements, key=lambda e: e.id)
    blocks = [child for child in element if isinstance(child, ui.html)]
    return "".join(block.content for block in blocks)
