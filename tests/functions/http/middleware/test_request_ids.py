"""Each request has an id, its own or ours."""

import re
from typing import Any

from tests.functions.clients import post_text


def test_a_request_keeps_its_id_and_its_trace(tokenize: Any) -> None:
    assert post_text(tokenize, **{"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = post_text(tokenize, traceparent=trace).headers
    assert found["traceparent"] == trace
    assert found["X-Request-Id"] == "0af7651916cd43dd8448eb211c80319c"
    for odd in ("", "a b", "x" * 65, "a\tb"):
        assert re.fullmatch(
            "[0-9a-f]{32}", post_text(tokenize, **{"X-Request-Id": odd}).headers["X-Request-Id"]
        )
