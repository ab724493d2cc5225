"""How long the chat waits for things; tests shorten it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Waits, in seconds."""

    text_update: float = 0.03  # between two updates of a streaming reply, at least
    clock_update: float = 0.5  # between two updates of the seconds shown while the model wakes
    waking_after: float = 0.5  # without an answer, before the chat says that the model wakes up
    count_after: float = 0.25  # after the last key, before the draft's tokens are counted
    warm_after: float = 0.75  # after that count, before the model reads the draft
    first_recheck: float = 1.0  # before the first new check on a function that is away
    longest_recheck: float = 5.0
    notice: float = 6.0  # how long "The model is back." and "Undo" stay
