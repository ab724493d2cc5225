"""A socket acts on its own page only."""

from uuid import uuid4

from tests.ui.bare_browser import Browser, Chat, draft_event, event, everything, theme_click


def test_a_socket_speaks_for_its_own_page_only(chat: Chat) -> None:
    victim, other = Browser(chat), Browser(chat)
    watching, foreign = victim.enter(), other.enter()
    everything(watching), everything(foreign)
    named = {"client_id": victim.client_id}
    foreign.send(theme_click(victim))
    foreign.send(draft_event(victim, "written by another"))
    foreign.send(event("ack", named | {"next_message_id": 10**6}))
    foreign.send(event("javascript_response", named | {"request_id": "x", "result": 1}))
    handshake = {"tab_id": victim.tab, "document_id": str(uuid4()), "next_message_id": 0}
    foreign.send(event("handshake", named | handshake).replace("42", "427", 1))
    assert everything(foreign, 0.5) == ["437[false]"]
    assert everything(watching, 0.5) == []
    foreign.send(theme_click(other, victim.client_id))
    foreign.send(event("log", named | {"level": "error", "message": "by another"}))
    assert everything(foreign, 0.5) == everything(watching, 0.5) == []
    # the same from its own socket is carried out
    watching.send(theme_click(victim))
    assert any("update" in message for message in everything(watching, 0.5))
    watching.close()
    victim.open()
    assert not any("by another" in message for message in everything(victim.enter()))


def test_an_address_that_names_another_page_than_the_message_is_refused(chat: Chat) -> None:
    """A page that was loaded ahead names itself in a message; that has the same bounds."""
    victim, other = Browser(chat), Browser(chat)
    socket = other.connect(implicit_handshake="false", client_id=victim.client_id)
    socket.recv(timeout=5)
    socket.send("40")
    assert str(socket.recv(timeout=5)).startswith("40{")
    named = {"client_id": victim.client_id, "tab_id": victim.tab, "document_id": "d"}
    socket.send(event("handshake", named).replace("42", "421", 1))
    assert "431[false]" in everything(socket, 0.5)


def test_an_old_socket_of_a_page_leaves_room_but_not_for_many(chat: Chat) -> None:
    browser = Browser(chat)
    sockets = [browser.enter() for _ in range(4)]
    fifth = browser.connect()
    fifth.recv(timeout=5)
    fifth.send("40")
    assert str(fifth.recv(timeout=5)).startswith("44")
    for socket in sockets:
        socket.close()


def test_a_draft_beyond_the_bound_is_not_kept(chat: Chat) -> None:
    browser = Browser(chat)
    socket = browser.enter()
    socket.send(draft_event(browser, "short " * 10))
    socket.send(draft_event(browser, "long " * 100_000))
    everything(socket, 0.5)
    socket.close()
    browser.open()
    again = "".join(everything(browser.enter(), 0.7))
    assert "short short" in again
    assert "long long" not in again
