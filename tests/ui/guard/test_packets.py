"""Packets that no page sends do nothing."""

from collections.abc import Iterator

import httpx

from tests.ui.bare_browser import Browser, Chat, event, everything, theme_click

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
