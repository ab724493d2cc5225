"""Only pages of this site open the chat's socket."""

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.ui.bare_browser import SOCKET, Browser, Chat
from tests.ui.guard.conftest import LISTED
from ui.guard.origin import same_host

ORIGINS = [  # Origin, further headers, whether it is the chat's own; {port} is the chat's
    (None, {}, True),
    ("http://127.0.0.1:{port}", {}, True),
    ("HTTP://127.0.0.1:{port}", {}, True),
    ("https://127.0.0.1:{port}", {}, True),  # TLS ends before the chat
    (LISTED, {}, True),
    ("https://pi.example", {"X-Forwarded-Host": "pi.example"}, True),
    ("https://pi.example:443", {"X-Forwarded-Host": "pi.example"}, True),
    ("http://pi.example", {"X-Forwarded-Host": "pi.example:80, inner"}, True),
    ("http://evil.example", {}, False),
    ("https://evil.example", {"X-Forwarded-Host": "pi.example"}, False),
    ("null", {}, False),
    ("", {}, False),
    ("http://127.0.0.1", {}, False),
    ("http://127.0.0.1:1", {}, False),
    ("http://127.0.0.1:{port}.evil.example", {}, False),
    ("http://evil.example:{port}", {}, False),
    ("http://127.0.0.1:{port}@evil.example", {}, False),
    ("http://evil.example@127.0.0.1:{port}", {}, False),
    ("http://127.0.0.1:{port}/path", {}, False),
    ("http://localhost:{port}", {}, False),
    ("file://", {}, False),
    ("chrome-extension://abcdef", {}, False),
    ("https://chat.example.evil.example", {}, False),
    ("https://chat.example:444", {}, False),
    ("http://chat.example", {}, False),
    ("http://[::1", {}, False),
    ("http://127.0.0.1:99999", {}, False),
    ("http://127.0.0.1:{port} http://evil.example", {}, False),
    ("\x80\xff", {}, False),
]


@pytest.mark.parametrize(("origin", "more", "own"), ORIGINS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_only_the_chats_own_pages_open_its_socket(
    chat: Chat, origin: str | None, more: dict[str, str], own: bool, method: str
) -> None:
    headers = {name.encode(): value.encode() for name, value in more.items()}
    if origin is not None:
        headers[b"Origin"] = origin.format(port=chat.port).encode("latin-1")
    url = f"{chat.url}{SOCKET}?EIO=4&transport=polling"
    answer = httpx.request(method, url, headers=headers)
    if method == "OPTIONS":
        assert answer.status_code == 405
    elif own:
        assert answer.status_code == (200 if method == "GET" else 400)
    else:
        assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("origin", "more", "own"), [o for o in ORIGINS if o[0] != "\x80\xff"])
def test_only_the_chats_own_pages_open_its_web_socket(
    chat: Chat, origin: str | None, more: dict[str, str], own: bool
) -> None:
    browser = Browser(chat)
    headers = {"Origin": "" if origin is None else origin.format(port=chat.port), **more}
    if origin == "":
        pytest.skip("this client sends no empty header")
    if own:
        browser.enter(headers=headers).close()
        return
    with pytest.raises(InvalidStatus) as refused:
        browser.connect(headers=headers)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://pi", "pi", True),
        ("https://pi", "pi", True),
        ("http://pi", "pi:80", True),
        ("https://pi", "pi:443", True),
        ("https://PI.local", "pi.local", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://pi", "pi:8080", False),
        ("http://pi:8080", "pi", False),
        ("http://pi:x", "pi:x", False),
        ("http://", "", False),
        ("pi", "pi", False),
        ("ws://pi", "pi", False),
    ],
)
def test_same_host(origin: str, host: str, same: bool) -> None:
    assert same_host(origin, host) is same
