"""The chat's socket against other sites, other visitors, and what no page sends.

Every test is run against the real process; when all have passed it must not have written a word.
"""

import gzip
import json
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.ports import free_port
from tests.ui.bare_browser import SOCKET, Browser, Chat, event, everything, lines_of, running
from ui.guard.origin import same_host

LISTED = "https://chat.example"


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    with running(free_port(), PIBLOOM_UI_ORIGINS=LISTED) as running_chat:
        yield running_chat
        output = "\n".join(lines_of(running_chat.end()))
        assert output == "", output[:3000]


def theme_click(browser: Browser, client_id: str | None = None) -> str:
    """A press on a button that shows: the theme's."""
    number = next(
        int(n)
        for n, e in browser.elements.items()
        if e["tag"] == "button" and (e.get("props") or {}).get("aria-pressed") == "false"
    )
    return event("event", click_of(browser, number, client_id))


def click_of(browser: Browser, number: int, client_id: str | None = None) -> dict[str, object]:
    return {
        "id": number,
        "client_id": client_id or browser.client_id,
        "listener_id": browser.listener(number, "click"),
        "args": ["{}"],
    }


def draft(browser: Browser, text: str) -> str:
    """A text that is typed into the composer."""
    number = next(
        int(n)
        for n, e in browser.elements.items()
        if (e.get("props") or {}).get("placeholder") == "Message piBLOOM"
    )
    content = {
        "id": number,
        "client_id": browser.client_id,
        "listener_id": browser.listener(number, "update"),
        "args": [json.dumps(text)],
    }
    return event("event", content)


# origins


HOST = "127.0.0.1"
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


# sessions


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


def test_a_socket_speaks_for_its_own_page_only(chat: Chat) -> None:
    victim, other = Browser(chat), Browser(chat)
    watching, foreign = victim.enter(), other.enter()
    everything(watching), everything(foreign)
    named = {"client_id": victim.client_id}
    foreign.send(theme_click(victim))
    foreign.send(draft(victim, "written by another"))
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


@pytest.mark.parametrize("how", ["tab_id", "old_tab_id"])
def test_a_tabs_chat_is_read_by_its_own_visitor_only(chat: Chat, how: str) -> None:
    victim = Browser(chat)
    socket = victim.enter()
    socket.send(draft(victim, "nobody else's words"))
    everything(socket, 0.5)
    socket.close()
    thief = Browser(chat)
    for cookie, page in ((None, thief), (None, victim)):
        page.open()
        socket = page.enter(cookie=cookie, **{how: victim.tab})
        seen = any("nobody else's words" in message for message in everything(socket, 0.7))
        assert seen is (page is victim)
        socket.close()


def test_an_old_socket_of_a_page_leaves_room_but_not_for_many(chat: Chat) -> None:
    browser = Browser(chat)
    sockets = [browser.enter() for _ in range(4)]
    fifth = browser.connect()
    fifth.recv(timeout=5)
    fifth.send("40")
    assert str(fifth.recv(timeout=5)).startswith("44")
    for socket in sockets:
        socket.close()


# what no page sends

DEEP = "[" * 100_000
ESCAPE = "\x1b[31mred\x1b[0m\nINFO forged line\r\x07"
GOOD = {"id": 0, "client_id": "{client}", "listener_id": "{listener}", "args": []}
PACKETS: list[str | bytes] = [
    *("", "x", "0", "2", "2probe2", "4", "6", "7", "8", "9", "-1", "é", "\x00", "b", "bAAAA", "b!"),
    *("1x", "3x", "5x", "٤", "²", "4٢[]", "40x", "40{}", "40/admin", "40/admin,", "41/x,", "40[]"),
    *("42", "42{}", '42"event"', "42null", "42[]", "42[1]", '42["event"]', "42[[]]", "42[null,{}]"),
    *('42["event",1]', '42["event",null]', '42["event","x"]', '42["event",[]]', '42["event",{}]'),
    '42["event",{},{}]',
    *('42["connect",{}]', '42["connect"]', '42["disconnect"]', '42["disconnect","x"]'),
    '42["connect",{"QUERY_STRING":"implicit_handshake=true"}]',
    *('42["message",{}]', '42["*",{}]', '42["__class__",{}]', '42["shutdown",{"client_id":"x"}]'),
    *("42[" + DEEP, '42["event",' + DEEP, '42["event",' + DEEP + "]" * 100_001 + "]"),
    '42["event",{"a":' * 5_000,
    *("43[]", "431[]", "4399[1]", "44", '44{"message":"x"}', "45", '451-["event",{}]'),
    '451-["event",{"_placeholder":true,"num":0}]',
    *('451-["event",{"_placeholder":true,"num":-1}]', '4599999999-["event"]', '461-1["x"]'),
    "42" + "9" * 200 + "[]",
    "42" + "9" * 16 + '["event",{}]',
    '42/x,["event",{}]',
    '42["event",{"id":1e999,"client_id":"x","listener_id":"y","args":[]}]',
    '42["event",' + "9" * 5_000 + "]",
    *(b"", b"\x00", b"4", b'42["event",{}]', b"\xff" * 100, bytes(range(256))),
]


def wrong_events() -> Iterator[str]:
    """Every field of every event, missing and with values of other types."""
    whole: dict[str, dict[str, object]] = {
        "event": dict(GOOD),
        "handshake": {"client_id": "{client}", "tab_id": "t", "document_id": "d"},
        "javascript_response": {"client_id": "{client}", "request_id": "r"},
        "ack": {"client_id": "{client}", "next_message_id": 0},
        "log": {"client_id": "{client}", "level": "info", "message": "m"},
    }
    values: list[object] = [None, True, 1.5, 10**30, -1, "", "x" * 65, [], {}, [[]], [{}], {"a": 1}]
    for name, content in whole.items():
        for field in content:
            yield event(name, {key: value for key, value in content.items() if key != field})
            for value in values:
                yield event(name, content | {field: value})
    wrong: list[list[object]] = [
        [1],
        [{}],
        ["{"],
        ["x"],
        ["[" * 2_000],
        ["NaN"],
        ["1e999"],
        [None] * 3,
        ["\x00"],
    ]
    for arguments in wrong:
        yield event("event", GOOD | {"args": arguments})
    for level in ("critical", "__class__", ESCAPE, "INFO"):
        yield event("log", {"client_id": "{client}", "level": level, "message": "m"})
    for level in ("debug", "info", "warning", "error"):
        yield event("log", {"client_id": "{client}", "level": level, "message": ESCAPE})


WRONG = [*PACKETS, *wrong_events()]


def filled(packet: str | bytes, browser: Browser) -> str | bytes:
    if isinstance(packet, bytes):
        return packet
    listener = browser.listener(0, "pibloom_leave")
    return packet.replace("{client}", browser.client_id).replace("{listener}", listener)


def test_packets_that_no_page_sends_do_nothing(chat: Chat) -> None:
    """Each on a socket of its own, first before and then after its page was named."""
    browser = Browser(chat)
    for packet in WRONG:
        for named in (False, True):
            if named:
                browser.open()
            socket = browser.enter() if named else browser.connect()
            try:
                socket.send(filled(packet, browser))
                everything(socket, 0.01)
            finally:
                socket.close()
    assert httpx.get(f"{chat.url}/healthz").status_code == 200


def test_nothing_is_read_after_the_last_packet(chat: Chat) -> None:
    browser = Browser(chat)
    for last in ("1", "41"):
        for after in ("40", "1", "3", theme_click(browser)):
            for named in (False, True):
                browser.open()
                socket = browser.enter() if named else browser.connect()
                socket.send(last)
                socket.send(after)
                everything(socket, 0.05)
                socket.close()


def test_values_that_an_element_cannot_have_do_nothing(chat: Chat) -> None:
    browser = Browser(chat)
    socket = browser.enter()
    everything(socket)
    values: list[object] = [
        None,
        True,
        False,
        -1,
        10**30,
        1e300,
        "",
        "x",
        "1e999",
        "nan",
        "9" * 5000,
    ]
    values += [[], [1], {}, {"value": 1}, "\x00\x1b[31m", "\ud800", "x" * 200_000, [[[[]]]]]
    for number, element in browser.elements.items():
        for listener in element.get("events") or []:
            if "keydown" in listener["type"] or "click" in listener["type"]:
                continue  # a press is a press, whatever comes with it
            for value in values:
                content = {"id": int(number), "client_id": browser.client_id}
                content |= {"listener_id": listener["listener_id"], "args": [json.dumps(value)]}
                socket.send(event("event", content))
    assert "closed" not in everything(socket)
    socket.send(theme_click(browser))
    assert any("update" in message for message in everything(socket))


def test_a_draft_beyond_the_bound_is_not_kept(chat: Chat) -> None:
    browser = Browser(chat)
    socket = browser.enter()
    socket.send(draft(browser, "short " * 10))
    socket.send(draft(browser, "long " * 100_000))
    everything(socket, 0.5)
    socket.close()
    browser.open()
    again = "".join(everything(browser.enter(), 0.7))
    assert "short short" in again
    assert "long long" not in again


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


def test_a_compressed_message_is_not_unpacked(chat: Chat) -> None:
    """15 kB that would be 15 MB: the extension is not agreed to, so such a frame is an error."""
    browser = Browser(chat)
    socket = browser.connect()
    assert "permessage-deflate" not in str(socket.response and socket.response.headers)
    assert socket.protocol.extensions == []


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
