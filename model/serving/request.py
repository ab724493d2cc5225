"""What the scheduler is asked for."""

from dataclasses import dataclass

from model.sampling import DEFAULTS, SamplingParams


@dataclass(frozen=True)
class GenerationRequest:
    """One generation to run; `ValueError` when its fields do not fit together."""

    prompt: tuple[int, ...]
    max_new_tokens: int = 256  # 0: the prompt is only read
    sampling: SamplingParams = DEFAULTS
    stop: tuple[str, ...] = ()
    deadline: float | None = None  # on the clock of time.monotonic(), seconds
    logprobs: int | None = None  # give log-probabilities: the token's, and of so many likeliest
    prompt_logprobs: bool = False  # for the prompt too, whose tokens are then read one by one
    background: bool = False  # is cancelled when any other request comes
    tenant: str | None = None  # whose request it is; only this tenant's cached tokens are reported

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a prompt needs at least one token")
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, not {self.max_new_tokens}")
        if self.prompt_logprobs and self.logprobs is None:
            raise ValueError("prompt_logprobs needs logprobs")
