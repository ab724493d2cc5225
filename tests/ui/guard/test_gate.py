"""Addresses, long polls and sockets that no page of the chat uses are refused."""

import gzip
import json
import time

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.ui.bare_browser import (
    SOCKET,
    Browser,
    Chat,
    everything,
)

POLLS: list[tuple[bytes, dict[str, str]]] = [
    (b"\xff\xfe", {}),
    (gzip.compress(b"3"), {"Content-Encoding": "gzip"}),
    (gzip.compress(b"4" + b" " * 15_000_000), {"Content-Encoding": "gzip"}),
    (b"3\x1e" * 16 + b"3", {}),
    (b"d=3", {}),
    (b"d=", {}),
    (b"bAAAA", {}),
    (b"3" * 1_000_001, {}),
    (b"", {}),
    (b"\x1e", {}),
    (b"40\x1e40\x1e40", {}),
    (b"1\x1e40\x1e3", {}),
    (b"6", {}),
    (b"2", {}),
    (b"0", {}),
]


@pytest.mark.parametrize("number", range(len(POLLS)))
def test_long_polls_that_no_page_sends_are_refused(chat: Chat, number: int) -> None:
    body, headers = POLLS[number]
    browser = Browser(chat)
    opened = browser.http.get(browser.query(transport="polling"))
    sid = json.loads(opened.text[1:])["sid"]
    answer = browser.http.post(
        browser.query(transport="polling", sid=sid), content=body, headers=headers
    )
    assert answer.status_code == (200 if body.startswith(b"40") else 400)
    assert "Traceback" not in answer.text
    other = httpx.Client(base_url=chat.url)
    stolen = other.post(browser.query(transport="polling", sid=sid), content=b"40")
    assert stolen.status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "",
        "EIO=3&transport=polling",
        "EIO=4",
        "EIO=4&transport=x",
        "EIO=4&transport=polling&transport=websocket",
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=polling&j=x%0aforged",
        "EIO=4&transport=polling&sid=x%0aforged%1b[31m",
        "EIO=4&transport=websocket",
        "EIO=4&transport=websocket&sid=nonsense",
        "%ff=%ff&%01=1",
        "&".join(f"a{i}=1" for i in range(1000)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [SOCKET, "/_nicegui_ws/", "/_nicegui_ws/other", SOCKET + "x"])
def test_addresses_that_no_page_asks_are_refused(
    chat: Chat, query: str, method: str, path: str
) -> None:
    answer = httpx.request(method, f"{chat.url}{path}?{query}", headers={"Origin": chat.url})
    assert answer.status_code in (400, 404, 405)
    assert "forged" not in answer.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/about", "/_nicegui_ws/other", "/x"])
def test_web_sockets_elsewhere_are_refused(chat: Chat, path: str) -> None:
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as refused:
        connect(chat.url.replace("http", "ws") + path, proxy=None)
    assert refused.value.response.status_code in (403, 404)


def test_a_socket_that_names_no_page_is_closed(chat: Chat) -> None:
    browser = Browser(chat)
    silent, chatty = browser.connect(), browser.connect()
    until = time.monotonic() + 20
    closed = False
    while not closed and time.monotonic() < until:
        try:
            chatty.send("3")
        except Exception:
            closed = True
        time.sleep(0.2)  # a sign of life, now and then
    assert closed
    assert everything(silent, 5)[-1] == "closed"
