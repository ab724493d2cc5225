"""Reading answers: errors of the native routes, their streams, and those of OpenAI's routes."""

import json
import re
from typing import Any

STATUS_OF = {
    "not_json": 400,
    "bad_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_field": 422,
    "context_full": 422,
    "overloaded": 429,
    "loading": 503,
    "draining": 503,
    "deadline": 504,
    "internal": 500,
}


def check_error(response: Any, type_: str) -> dict[str, Any]:
    assert response.content_type == "application/json"
    text = response.get_data(as_text=True)
    assert "<html" not in text.lower()
    assert "Traceback" not in text
    assert "/functions/" not in text
    (error,) = json.loads(text).values()
    assert {"code", "type", "message", "param"} <= set(error)
    assert error["type"] == type_
    assert error["code"] == response.status_code == STATUS_OF[type_]
    return dict(error)


def events_of(response: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in response.get_data(as_text=True).split("\n\n"):
        if block.startswith("event: "):
            name, data = re.fullmatch(r"event: (\w+)\ndata: (.*)", block).groups()  # type: ignore[union-attr]
            found.append((name, json.loads(data)))
    return found


def chunks_of(response: Any) -> list[Any]:
    """The JSON of each event; the last line must be [DONE]."""
    blocks = [b for b in response.get_data(as_text=True).split("\n\n") if b.startswith("data: ")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]
