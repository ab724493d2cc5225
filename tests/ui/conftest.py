"""Fixtures: the chat in a simulated browser, with fake functions on the loopback interface."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from nicegui import core
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from tests.ui.fake_functions import Fake, both
from tests.ui.simulated import PATIENCE, QUICK, Site
from ui.api.client import FunctionsClient
from ui.app import build
from ui.settings import Settings


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
