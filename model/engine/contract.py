"""What an engine must do: token ids in, logits out; it knows nothing of text, HTTP or requests.

Only the scheduler calls an engine, from one thread. A call of `forward` is one step; between two
steps a sequence can be dropped, which is how a generation is cancelled.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from model.config import BloomConfig


class OutOfMemory(Exception):
    """There is no memory for a sequence's keys and values now; nothing was changed.

    `wanted` and `free` are in tokens.
    """

    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(f"memory for {wanted} tokens was wanted, and there is room for {free}")
        self.wanted, self.free = wanted, free


class Logits(Protocol):
    """The scores of every token id that may follow one sequence.

    They are valid until the engine's next step, or until their sequence is released.
    """

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        """Return the `count` largest (id, logit) except for `without`, the largest first.

        Of equal logits the lower id comes first. There are fewer when the vocabulary has no more.
        """

    def at(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of these ids; -inf for ids that the vocabulary lacks."""

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        """Return log Σ exp(logit / temperature) over all ids except those in `without`."""


class EngineSequence(Protocol):
    """The keys and values of one sequence; its engine alone looks inside."""

    @property
    def length(self) -> int:
        """How many tokens it holds."""

    @property
    def cached_for_tenant(self) -> int:
        """How many of its first tokens were in the cache, and read before by the same tenant."""


S = TypeVar("S", bound=EngineSequence)


@dataclass(frozen=True)
class Work(Generic[S]):
    """Tokens to append to one sequence in a step: a chunk of a prompt, or one new token."""

    sequence: S
    tokens: Sequence[int]
    wants_logits: bool = True  # false for a prompt's chunk that is not its last


class Engine(Protocol[S]):
    """Runs a BLOOM."""

    config: BloomConfig
    name: str  # "reference" or "native"
    dtype: str  # of the weights, as shown to people

    @property
    def kv_tokens_total(self) -> int | None:
        """How many tokens of all sequences fit into memory; None without a limit."""

    @property
    def kv_bytes(self) -> tuple[int, int]:
        """Bytes of keys and values of running sequences, and those cached from ended ones."""

    @property
    def progress(self) -> int:
        """A number that changes while a step makes progress; any thread may read it."""

    def new_sequence(
        self,
        prompt: Sequence[int] = (),
        capacity: int = 0,
        tenant: str | None = None,
        *,
        warms: bool = False,
    ) -> S:
        """Open a sequence with memory for `capacity` tokens, or raise `OutOfMemory`.

        It may already hold the first tokens of `prompt`, from the engine's cache, but never its
        last token: the caller continues at its `length`. `tenant` is who made the request. A
        sequence that `warms` reads ahead for a later request; it takes no memory from the cache of
        real requests.
        """

    def forward(self, batch: Sequence[Work[S]]) -> list[Logits | None]:
        """Append each work's tokens to its sequence; return the logits after the last token.

        There is one result for each work, in order; None where `wants_logits` is false.
        """

    def release(self, sequence: S) -> None:
        """Free what the sequence holds; it is not used again."""

    def close(self) -> None:
        """Free everything; the engine is not used again."""
