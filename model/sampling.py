"""Choosing the next token: one way for every engine.

An engine hands out `Logits`, of which the sampler asks only for the largest few and for sums over
all, so that an engine need not compute or copy a whole vocabulary for each token.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

_COLDEST = 1e-5  # below this only the likeliest token is left, and quotients overflow
_FIRST_LOOK = 64  # candidates asked for at first where no top-k bounds them


class Logits(Protocol):
    """The scores of every token id that may follow one sequence.

    They can be asked until the engine's next step, or until their sequence is released.
    """

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        """Return the `count` largest (id, logit) but `without`, largest first, equals by lowest id.

        There are fewer when the vocabulary has no more.
        """

    def at(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of these ids; -inf for ids that the vocabulary lacks."""

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        """Return log Σ exp(logit / temperature) over all ids but those in `without`."""


MAX_TOP_K = 1024  # candidates beyond them are never looked at: all of BLOOM's would take seconds


@dataclass(frozen=True)
class SamplingParams:
    """How a reply is drawn; `ValueError` names the first field out of its range."""

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


class Sampler:
    """Draws one sequence's tokens; the same seed and logits give the same tokens.

    The order is that of transformers: penalties and biases, temperature, top-k, top-p, min-p.
    Exactly one random number is used for each token, whatever the other sequences do. The
    repetition penalty sees the prompt too; presence and frequency are those of the reply, as OpenAI
    has them.
    """

    def __init__(
        self, params: SamplingParams, prompt: Collection[int], never: Collection[int] = ()
    ) -> None:
        self.params = params
        self.seed = random.SystemRandom().getrandbits(53) if params.seed is None else params.seed
        self._random = random.Random(self.seed)
        self._never = frozenset(never)
        self._seen = set(prompt) - self._never if params.repetition_penalty != 1 else None
        self._written: Counter[int] = Counter()
        self._biases = {id_: bias for id_, bias in params.logit_bias if id_ not in self._never}

    def next(self, logits: Logits) -> int:
        """Draw the id of the next token."""
        choice = self._choose(logits)
        if self._seen is not None:
            self._seen.add(choice)
        if self.params.presence_penalty or self.params.frequency_penalty:
            self._written[choice] += 1
        return choice

    def _choose(self, logits: Logits) -> int:
        params = self.params
        penalized = self._penalized(logits)
        ranked = self._ranked(logits, penalized)
        if params.temperature < _COLDEST:
            return next(ranked)[0]
        if params.top_k:
            best = list(islice(ranked, params.top_k))
            log_total = _logsumexp([logit / params.temperature for _, logit in best])
            ranked = iter(best)
        else:
            skipped = self._never.union(penalized)
            log_total = _logsumexp(
                [logit / params.temperature for logit in penalized.values()]
                + [logits.logsumexp(params.temperature, skipped)]
            )
        return self._draw(
            (id_, math.exp(logit / params.temperature - log_total)) for id_, logit in ranked
        )

    def _draw(self, likeliest_first: Iterator[tuple[int, float]]) -> int:
        """Draw from (id, probability) pairs, cut by top-p and min-p."""
        draw = self._random.random()
        if self.params.top_p < 1 or self.params.min_p > 0:
            nucleus, mass = self._nucleus(likeliest_first)
            draw *= mass
            likeliest_first = iter(nucleus)
        below, seen = 0.0, []
        for id_, probability in likeliest_first:
            below += probability
            seen.append((id_, below))
            if draw < below:
                return id_
        # What is left was never looked at, or is a rounding error: share it out among the others.
        draw = (draw - below) / max(1e-12, 1 - below) * below
        return next((id_ for id_, upto in seen if draw < upto), seen[-1][0])

    def _nucleus(
        self, likeliest_first: Iterator[tuple[int, float]]
    ) -> tuple[list[tuple[int, float]], float]:
        """Return the pairs that top-p and min-p leave, and the sum of their probabilities.

        Both cut off the end: top-p leaves the smallest set that holds it, min-p what has that share
        of the first one's probability.
        """
        nucleus: list[tuple[int, float]] = []
        mass = 0.0
        for pair in likeliest_first:
            if nucleus and pair[1] < self.params.min_p * nucleus[0][1]:
                break
            nucleus.append(pair)
            mass += pair[1]
            if mass >= self.params.top_p < 1:
                break
        return nucleus, mass

    def _penalized(self, logits: Logits) -> dict[int, float]:
        """Return the new logits of the tokens that a penalty (Keskar et al. 2019) or bias meets."""
        params, seen = self.params, self._seen or set()
        ids = sorted(seen | self._written.keys() | self._biases.keys())
        if not ids:
            return {}
        changed = {}
        for id_, logit in zip(ids, logits.at(ids), strict=True):
            if id_ in seen:
                penalty = params.repetition_penalty
                logit = logit / penalty if logit > 0 else logit * penalty
            if count := self._written[id_]:
                logit -= params.presence_penalty + params.frequency_penalty * count
            changed[id_] = logit + self._biases.get(id_, 0.0)
        return changed

    def _ranked(self, logits: Logits, penalized: dict[int, float]) -> Iterator[tuple[int, float]]:
        """Yield (id, logit), largest first, asking the engine for more only when they run out."""
        waiting = deque(sorted(penalized.items(), key=lambda pair: -pair[1]))
        skipped = self._never.union(penalized)
        greedy = self.params.temperature < _COLDEST
        count, told = 1 if greedy else self.params.top_k or _FIRST_LOOK, 0
        while True:
            top = logits.top(count, skipped)
            for pair in top[told:]:
                while waiting and waiting[0][1] > pair[1]:
                    yield waiting.popleft()
                yield pair
            if len(top) < count or count == MAX_TOP_K:
                break
            told, count = count, min(count * 8, MAX_TOP_K)
        yield from waiting


def _logsumexp(values: Sequence[float]) -> float:
    largest = max(values)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))
