"""`FunctionError`: the one way in which a call to a function fails."""

from collections.abc import Mapping
from typing import Any

from ui.api import sentences

# Kinds that mean "not now": the function may be down, and is worth waiting for.
AWAY = frozenset({"unreachable", "unavailable", "silent", "broken", "loading", "draining"})
# Kinds for which sending the same message again would not help.
TOO_LONG = frozenset({"context_full", "body_too_large"})


class FunctionError(Exception):
    """A call that failed. `message` is a sentence for the person in front of the chat.

    `kind` is the functions' own error type, or one of the chat's: "unreachable" (no connection),
    "silent" (no answer in time), "broken" (the answer broke off), "unavailable" (a proxy says so),
    "foreign" (not piBLOOM), "internal" (a fault in the chat).
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        prompt_tokens: int | None = None,
        max_context: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status
        self.retry_after = retry_after
        self.prompt_tokens, self.max_context = prompt_tokens, max_context

    @property
    def away(self) -> bool:
        """Tell whether the function may be down, and is worth waiting for."""
        return self.kind in AWAY

    @property
    def too_long(self) -> bool:
        """Tell whether the message itself is too long to be answered."""
        return self.kind in TOO_LONG


def parse_error(
    error: Mapping[str, Any], status: int, retry_after: int | None = None
) -> FunctionError:
    """Read the `error` object of a function's answer.

    Raises KeyError or TypeError if it has another form.
    """
    kind, own_message = str(error["type"]), str(error["message"])
    return FunctionError(
        kind,
        sentences.refused(kind, own_message, retry_after),
        status=status,
        retry_after=retry_after,
        prompt_tokens=optional_int(error.get("prompt_tokens")),
        max_context=optional_int(error.get("max_context")),
    )


def foreign(function: str, status: int | None = None) -> FunctionError:
    """Return the error for an answer that is not in piBLOOM's form."""
    return FunctionError("foreign", sentences.foreign(function), status=status)


def optional_int(value: object) -> int | None:
    """Return a JSON value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
