"""A page and a tab are opened by their own visitor only."""

import pytest

from tests.ui.bare_browser import Browser, Chat, draft_event, everything, theme_click


def test_a_page_is_opened_by_its_own_visitor_only(chat: Chat) -> None:
    victim, other = Browser(chat), Browser(chat)
    for cookie in (other.cookie, "", "session=nonsense", victim.cookie[:-2] + "xx"):
        socket = victim.connect(cookie=cookie)
        socket.recv(timeout=5)
        socket.send("40")
        answer = str(socket.recv(timeout=5))
        assert answer.startswith("44")
        assert "another session" in answer
        socket.send(theme_click(victim))
        assert everything(socket, 0.3) == []
        socket.close()
    victim.enter().close()


@pytest.mark.parametrize("how", ["tab_id", "old_tab_id"])
def test_a_tabs_chat_is_read_by_its_own_visitor_only(chat: Chat, how: str) -> None:
    victim = Browser(chat)
    socket = victim.enter()
    socket.send(draft_event(victim, "nobody else's words"))
    everything(socket, 0.5)
    socket.close()
    thief = Browser(chat)
    for cookie, page in ((None, thief), (None, victim)):
        page.open()
        socket = page.enter(cookie=cookie, **{how: victim.tab})
        seen = any("nobody else's words" in message for message in everything(socket, 0.7))
        assert seen is (page is victim)
        socket.close()
