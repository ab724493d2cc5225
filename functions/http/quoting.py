"""What an answer or a log line may repeat of a request: never a text that may be a prompt."""

import msgspec


def shortened(text: str, limit: int = 60) -> str:
    """Return a text of at most `limit` characters; a longer one ends in an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def describe(value: object) -> str:
    """Describe a JSON value by its kind and size; only numbers, true, false and null are quoted."""
    match value:
        case str():
            return f"a text of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return shortened(msgspec.json.encode(value).decode())
