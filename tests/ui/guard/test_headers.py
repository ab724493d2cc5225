"""The headers against what is loaded from elsewhere."""

import httpx
import pytest

from tests.ui.bare_browser import Chat


@pytest.mark.parametrize("path", ["/", "/about", "/nowhere", "/_nicegui_ws/socket.io/"])
def test_every_answer_keeps_a_browser_from_other_sites(chat: Chat, path: str) -> None:
    headers = httpx.get(chat.url + path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["connect-src"] == "'self'"
    assert policy["object-src"] == "'none'"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
