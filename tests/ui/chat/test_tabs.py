"""One page per tab: tabs never see each other's text, and leaving a page ends its reply."""

import asyncio

import pytest
from nicegui import app
from nicegui.testing import User

from tests.ui.fake_functions import (
    halted,
    said,
)
from tests.ui.simulated import (
    Site,
    prose,
    see,
    send,
    texts,
)

pytestmark = pytest.mark.asyncio


async def test_two_tabs_never_see_each_others_text(user: User, site: Site) -> None:
    other = site.new_user()
    await other.open("/")
    await see(other, "What shall we talk about?")
    site.fake.answers = [said("The walrus answers"), said("The zebra answers")]
    send(user, "Where is the walrus?")
    await see(user, "The walrus answers")
    send(other, "Where is the zebra?")
    await see(other, "The zebra answers")
    await see(other, "12.3 tokens/s")
    await user.should_not_see("zebra")
    await other.should_not_see("walrus")
    assert "walrus" not in str(site.fake.requests[1])
    stored = [str(app.storage._tabs[browser.tab_id]) for browser in (user, other)]
    assert "walrus" in stored[0]
    assert "zebra" not in stored[0]
    assert "zebra" in stored[1]
    assert "walrus" not in stored[1]


async def test_two_tabs_of_one_browser_never_see_each_others_text(user: User, site: Site) -> None:
    second = User(user.http_client)  # the same cookies, another tab
    await second.open("/")
    await see(second, "What shall we talk about?")
    send(user, "Hello from one")
    await see(user, "Hello! I am piBLOOM.")
    await second.should_not_see("Hello from one")
    assert texts(second, "question") == []
    assert "Hello from one" not in str(dict(app.storage._users))


async def test_streams_of_two_tabs_do_not_mix(user: User, site: Site) -> None:
    other = site.new_user()
    await other.open("/")
    await see(other, "What shall we talk about?")
    gate = asyncio.Event()
    site.fake.answers = [halted("alpha beta", gate), halted("gamma delta", gate)]
    send(user, "One")
    await see(user, "alpha beta")
    send(other, "Two")
    await see(other, "gamma delta")
    gate.set()
    await see(user, "12.3 tokens/s")
    await see(other, "12.3 tokens/s")
    assert "gamma" not in prose(user)
    assert "alpha" not in prose(other)


async def test_a_reload_in_the_middle_ends_the_stream_and_keeps_the_part(
    user: User, site: Site
) -> None:
    site.fake.answers = [halted("Half of a reply"), said("A whole reply")]
    send(user, "Hello")
    await see(user, "Half of a reply")
    await user.open("/")
    await site.fake.wait_for(lambda: site.fake.left == 1)
    await see(user, "Half of a reply")
    await see(user, "Stopped")
    user.find(marker="regenerate").click()
    await see(user, "A whole reply")


async def test_closing_the_tab_ends_its_stream(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    assert user.client is not None
    user.client.delete()
    await site.fake.wait_for(lambda: site.fake.left == 1)
    assert site.tabs.pages == {}


async def test_leaving_the_page_ends_its_stream_at_once(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    with user:
        layout = user.current_layout
        for listener in layout._event_listeners.values():
            if listener.type == "pibloom_leave":
                assert listener.handler is not None
                listener.handler()
    await site.fake.wait_for(lambda: site.fake.left == 1)
