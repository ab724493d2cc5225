"""The chat in a simulated browser, with fake functions on the loopback interface."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from nicegui import core, ui
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from tests.ui.fake_functions import Fake, both
from ui.api.client import FunctionsClient
from ui.app import build
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


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[Fake]:
    """Both functions, in this process."""
    async with both(Fake()) as running:
        yield running


@pytest_asyncio.fixture
async def simulation(
    fake: Fake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[tuple[User, Site]]:
    """A browser without a page yet, and the site that it can open."""
    monkeypatch.setattr(Storage, "path", tmp_path)
    settings = Settings(generate_url=fake.generate_url, tokenize_url=fake.tokenize_url)
    async with user_simulation() as user:
        tabs = build(FunctionsClient(settings), QUICK)

        def new_user() -> User:
            transport = httpx.ASGITransport(core.app)
            return User(httpx.AsyncClient(transport=transport, base_url="http://test"))

        yield user, Site(fake, tabs, settings, new_user)
        for page in list(tabs.pages.values()):
            page.leave()
        # NiceGUI's outbox misses being cancelled while it is being woken (wait_for, Python 3.11).
        await asyncio.sleep(0.05)
    errors = [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "ERROR" and record.name != "uvicorn.error"
    ]
    assert not errors


@pytest_asyncio.fixture
async def user(simulation: tuple[User, Site]) -> User:
    """A browser on the chat's page, with its tab's chat restored."""
    user, _ = simulation
    await user.open("/")
    await user.should_see("What shall we talk about?", retries=PATIENCE)
    return user


@pytest.fixture
def site(simulation: tuple[User, Site]) -> Site:
    """The site of `user`."""
    return simulation[1]


def send(user: User, text: str) -> None:
    """Type a message and press Enter."""
    user.find(marker="input").type(text).trigger("keydown", text)


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
