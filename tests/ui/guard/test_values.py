"""Values that an element cannot have do nothing."""

import json

from tests.ui.bare_browser import Browser, Chat, event, everything, theme_click


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
