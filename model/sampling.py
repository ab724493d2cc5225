"""The parameters of sampling, which a request may set and a model may recommend."""

import math
from dataclasses import dataclass

MAX_TOP_K = 1024  # candidates in all; looking at BLOOM's whole vocabulary would take seconds


@dataclass(frozen=True)
class SamplingParams:
    """The parameters of sampling; `ValueError` names the first field out of its range."""

    temperature: float = 0.8  # 0 takes the likeliest token always
    top_k: int = 40  # 0 considers as many as are ever considered, `MAX_TOP_K`
    top_p: float = 0.95  # 1 considers every token
    min_p: float = 0.0  # considers tokens of at least this share of the likeliest's probability
    repetition_penalty: float = 1.1  # 1 leaves repetition alone
    presence_penalty: float = 0.0  # taken off the logit of each token that the reply has already
    frequency_penalty: float = 0.0  # the same, for each time that it occurred
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, what is added to its logit)
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if not isinstance(self.top_k, int) or not 0 <= self.top_k <= MAX_TOP_K:
            raise ValueError(
                f"top_k must be a whole number from 0 to {MAX_TOP_K}, not {self.top_k}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a number, not {getattr(self, name)}")
        if not all(math.isfinite(bias) for _, bias in self.logit_bias):
            raise ValueError("logit_bias must hold numbers")


DEFAULTS = SamplingParams()  # of a model that recommends nothing
