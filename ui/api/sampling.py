"""How a reply is sampled: the fields of a request that a visitor can set."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SamplingOptions:
    """The options of one reply; a seed of None lets the function choose one."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.0
    max_new_tokens: int = 256
    seed: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the request's body, without those that change nothing."""
        fields = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_new_tokens,
        }
        if self.min_p:
            fields["min_p"] = self.min_p
        if self.seed is not None:
            fields["seed"] = self.seed
        return fields
