"""Web sockets: what their clients make the chat hold is bounded."""

import struct
from contextlib import suppress

import httpx

from tests.ui.bare_browser import Browser, Chat, resident


def test_a_client_that_reads_no_pongs_holds_no_memory(chat: Chat) -> None:
    browser = Browser(chat)
    opened = browser.enter()
    raw = opened.socket
    mask = b"\x00\x00\x00\x00"
    ping = b"\x89" + struct.pack("B", 0x80 | 125) + mask + b"x" * 125
    before = resident(chat)
    raw.settimeout(1)
    with suppress(OSError):
        for _ in range(2_000):  # 26 MB
            raw.sendall(ping * 100)
    assert resident(chat) - before < 12 * 2**20
    raw.close()


def test_messages_that_never_end_are_bounded_together(chat: Chat) -> None:
    """Each below the bound of one message; all of them together beyond the bound of all."""
    browsers = [Browser(chat) for _ in range(3)]
    part = b"\x01" + struct.pack("!BQ", 0x80 | 127, 990_000) + b"\x00" * 4 + b"x" * 990_000
    before = resident(chat)
    opened = [browser.enter() for browser in browsers for _ in range(4)]
    connections = [connection.socket for connection in opened]
    for connection in connections:
        with suppress(OSError):
            connection.sendall(part)
    assert httpx.get(f"{chat.url}/healthz", timeout=10).status_code == 200
    assert resident(chat) - before < 48 * 2**20
    for connection in connections:
        connection.close()


def test_a_compressed_message_is_not_unpacked(chat: Chat) -> None:
    """15 kB that would be 15 MB: the extension is not agreed to, so such a frame is an error."""
    browser = Browser(chat)
    socket = browser.connect()
    assert "permessage-deflate" not in str(socket.response and socket.response.headers)
    assert socket.protocol.extensions == []
