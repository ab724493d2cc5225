"""Refusing, by field and value, what would change the answer and cannot be done here."""

from typing import NoReturn

import msgspec

from functions import errors
from functions.http.quoting import shortened


def unsupported(field: str, value: object, reason: str) -> NoReturn:
    """Refuse the value of a field; `reason` says what is done here instead."""
    raise errors.InvalidField(
        f"{field} {quoted(value)} is not supported; {reason}",
        param=field,
        code="unsupported_value",
    )


def missing(field: str) -> NoReturn:
    """Refuse a request that lacks a field that it needs."""
    raise errors.InvalidField(
        f"the field {field} is missing", param=field, code="missing_required_parameter"
    )


def quoted(value: object) -> str:
    """Return the beginning of a value: of a text as it is, and of anything else as JSON."""
    return shortened(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def check_tool_choice(choice: object, field: str = "tool_choice") -> None:
    """Refuse a request that demands that a tool is called; tools that may be called are ignored.

    `choice` is OpenAI's `tool_choice`, as either of its APIs has it, or the older `function_call`.
    """
    match choice:
        case None | "auto" | "none" | "" | {"type": "auto" | "none"}:
            return
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}:
            return
        case {"type": "allowed_tools", "mode": "auto"}:
            return
        case {"function": {"name": str(name)}} | {"custom": {"name": str(name)}}:
            demanded: object = name
        case {"name": str(name)}:
            demanded = name
        case _:
            demanded = choice
    unsupported(field, demanded, "no tools are called here, and auto or none is answered with text")
