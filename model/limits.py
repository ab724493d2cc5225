"""How much a served model takes on at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of the scheduler; requests beyond them are refused."""

    max_batch: int = 8  # generations that run at once
    max_queue: int = 32  # generations that wait for a place among them
    max_queue_tokens: int = 65_536  # of the prompts that wait, all together

    @property
    def most_at_once(self) -> int:
        """The most generations that run and wait together."""
        return self.max_batch + self.max_queue


DEFAULT_LIMITS = Limits()
