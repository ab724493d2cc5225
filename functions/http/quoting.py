"""What an answer or a log line may repeat of a request: never a text that may be a prompt."""

import msgspec

from model.files import shortened as shortened


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
