"""What can go wrong with a function, in sentences for the person in front of the chat.

No sentence holds a status line, a traceback or an address.
"""

from ui.format import plural

STREAM_ENDED = "The reply broke off: the connection ended before it was done."
STREAM_SILENT = "The reply broke off: the model went silent."
STREAM_LOST = "The reply broke off: the connection was lost."
UNREADABLE_REPLY = "The reply cannot be read: it is not in piBLOOM's form."
CHAT_FAULT = "Something went wrong in the chat."

# The functions' own messages are for programs; these take their place.
_REFUSALS = {
    "overloaded": "Too many people are asking at once.",
    "loading": "The model is still being loaded.",
    "draining": "The model is being restarted.",
    "unauthorized": "The chat has no key to the model's function, or a wrong one.",
    "deadline": "The reply took longer than it is allowed to.",
    "internal": "Something went wrong inside the model's function.",
    "body_too_large": "This conversation is too large to send.",
}


def refused(kind: str, own_message: str, retry_after: int | None) -> str:
    """Return the sentence for a refusal, or the function's own message for an unknown kind."""
    sentence = _REFUSALS.get(kind, own_message)
    if kind == "overloaded" and retry_after:
        sentence += f" Try again in {retry_after} s."
    return sentence


def silent(function: str) -> str:
    """No answer came in time."""
    return f"The {function} function does not answer."


def unreachable(function: str) -> str:
    """There was no connection."""
    return f"The {function} function cannot be reached."


def broken(function: str) -> str:
    """The answer broke off."""
    return f"The {function} function broke off its answer."


def unavailable(function: str) -> str:
    """A proxy in front of the function answered instead of it."""
    return f"The {function} function is not available at the moment."


def foreign(function: str) -> str:
    """The answer is not in piBLOOM's form."""
    return f"Something that is not piBLOOM answers in place of the {function} function."


def message_too_long(prompt_tokens: int, max_context: int) -> str:
    """The last message alone is longer than the model's context."""
    return (
        f"This message is too long for the model: {plural(prompt_tokens, 'token')}, and it reads"
        f" fewer than {max_context:,} at a time. Shorten it to send it."
    )
