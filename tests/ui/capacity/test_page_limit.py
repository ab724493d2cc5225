"""How many pages may be open."""

import pytest
from nicegui.testing import User

from tests.ui.bare_browser import Browser, Chat
from tests.ui.simulated import Site
from ui.capacity import page_limit
from ui.limits import PAGES_WAITING


async def test_a_storm_of_pages_is_turned_away_with_a_page_that_tries_again(
    simulation: tuple[User, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages whose socket never comes, from visitors who are all new."""
    _, site = simulation
    monkeypatch.setattr(page_limit, "PAGE_GRACE_S", 3600.0)
    answers = [await site.new_user().http_client.get("/") for _ in range(PAGES_WAITING + 3)]
    assert [answer.status_code for answer in answers] == [200] * PAGES_WAITING + [503] * 3
    busy = answers[-1]
    assert busy.headers["Retry-After"] == "5"
    assert busy.headers["Cache-Control"] == "no-store"
    assert 'http-equiv="refresh"' in busy.text
    assert "tries again" in busy.text
    monkeypatch.setattr(page_limit, "PAGE_GRACE_S", 0.0)  # their time is over
    assert (await site.new_user().http_client.get("/")).status_code == 200


def test_a_visitors_pages_are_bounded(chat: Chat) -> None:
    browser = Browser(chat)
    sockets = []
    for _ in range(23):
        sockets.append(browser.enter())
        browser.open()
    sockets.append(browser.enter())
    refused = browser.http.get("/")
    assert refused.status_code == 503
    assert "24 chats open" in refused.text
    for opened in sockets:
        opened.close()
