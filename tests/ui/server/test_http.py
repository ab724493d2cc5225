"""Requests: bounded in number, size and time."""

import socket
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.ui.bare_browser import (
    Chat,
    ask,
    resident,
)

HOST = b"Host: pi\r\n"


MALFORMED = [
    b"\r\n\r\n",
    b"\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    b"GET /\r\n\r\n",
    b"G\xc3\xa9T / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://[::1 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"CONNECT pi:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: [::\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: pi:99999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: pi:x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: pi/path\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: session=\xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: ;;==;session\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b'X-Forwarded-Prefix: "><script>\r\n\r\n',
    b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: \xff, , ,\r\nX-Forwarded-Proto: \xff\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: \x1b[31m\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Bad Header: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 300_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100_000 + b"\r\n",
    b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /?" + b"a" * 60_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /?a=%ff%00%0a HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nxxxx",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\n"
    + HOST
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n\xff\xff",
    b"GET /\xff?\xff HTTP/1.1\r\n"
    + HOST
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
]


PATHS = [
    "/%00",
    "/%0a",
    "/%1b[31m",
    "/%ff",
    "/%ed%a0%80",
    "/" + "a" * 256,
    "/" + "a/" * 3_000,
    "/" + "é" * 200,
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/assets/%00",
    "/assets/{assets}/%00",
    "/assets/{assets}/" + "a" * 300,
    "/assets/{assets}/..%2f..%2fapp.py",
    "/assets/{assets}/../app.py",
    "/assets/{assets}//etc/passwd",
    "/_nicegui/{version}/static/%00",
    "/_nicegui/{version}/static/" + "a" * 300,
    "/_nicegui/{version}/static/..%2f..%2fclient.py",
    "/_nicegui/{version}/libraries/%00",
    "/_nicegui/{version}/components/%00",
    "/_nicegui/{version}/components/..%2f..%2fx",
    "/_nicegui/{version}/resources/x/%00",
    "/_nicegui/{version}/esm/nicegui-input/%00",
    "/_nicegui/{version}/esm/nicegui-input/" + "a" * 300,
    "/_nicegui/{version}/esm/nicegui-input/..%2f..%2f..%2fclient.py",
    "/_nicegui/{version}/dynamic_resources/%00",
    "/_nicegui/{version}/dynamic_resources/x",
    "/openapi.json",
    "/docs",
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_what_is_no_request_is_refused_or_closed(chat: Chat, number: int) -> None:
    answer = ask(chat, MALFORMED[number])
    assert b"Traceback" not in answer
    assert b" 500 " not in answer.split(b"\r\n", 1)[0]
    assert httpx.get(f"{chat.url}/healthz").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_addresses_of_nothing_are_404(chat: Chat, path: str) -> None:
    from nicegui import __version__

    from ui.assets import STYLE_URL

    path = path.format(assets=STYLE_URL.split("/")[2], version=__version__)
    answer = ask(chat, f"GET {path} HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in (b"400", b"404")
    assert b"Traceback" not in answer
    assert b"root:" not in answer
    assert b"import " not in answer


def test_requests_behind_each_other_are_answered_in_turn(chat: Chat) -> None:
    paths = ["/healthz", "/nothing", "/healthz", "/", "/nothing", "/healthz"] * 2
    heads = "".join(f"GET {path} HTTP/1.1\r\nHost: pi\r\n\r\n" for path in paths)
    answers = ask(chat, heads.encode()).split(b"HTTP/1.1 ")[1:]
    codes = {"/healthz": b"200", "/": b"200", "/nothing": b"404"}
    assert [answer[:3] for answer in answers] == [codes[path] for path in paths]


def test_a_client_that_leaves_with_requests_behind_each_other_says_nothing_in_the_log(
    chat: Chat,
) -> None:
    for path in ("/healthz", "/", "/nothing"):
        heads = f"GET {path} HTTP/1.1\r\nHost: pi\r\n\r\n".encode() * 12
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", chat.port), timeout=10) as connection:
                connection.sendall(heads)
                connection.recv(1)
    assert httpx.get(f"{chat.url}/healthz", timeout=10).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
def test_thousands_of_requests_behind_each_other_hold_no_memory(chat: Chat, path: str) -> None:
    """Each of 40 bytes in what is sent, and of 5,000 as an object that waits for its turn."""
    heads = f"GET {path} HTTP/1.1\r\nHost: pi\r\n\r\n".encode() * 5_000
    before = resident(chat)
    with ExitStack() as stack:
        for _ in range(40):
            connection = socket.create_connection(("127.0.0.1", chat.port), timeout=10)
            connection.settimeout(1)
            stack.enter_context(connection)
            with suppress(OSError):
                connection.sendall(heads)
        assert httpx.get(f"{chat.url}/healthz", timeout=10).status_code == 200
        assert resident(chat) - before < 64 * 2**20


def test_heads_that_never_end_are_ended(chat: Chat) -> None:
    heads = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: pi\r\nX:", b"\r\n" * 10]
    heads.append(b"GET /healthz HTTP/1.1\r\nHost: pi\r\n\r\nGET / HT")
    with ExitStack() as stack:
        connections = []
        for head in heads:
            connection = socket.create_connection(("127.0.0.1", chat.port), timeout=30)
            connections.append(stack.enter_context(connection))
            connection.sendall(head)
        for connection in connections:
            with suppress(ConnectionResetError):
                while connection.recv(1000):
                    pass
