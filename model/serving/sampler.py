"""Choosing the next token, in the same way for every engine.

The sampler asks an engine's `Logits` only for the largest few and for sums over all, so an engine
does not have to copy the scores of the whole vocabulary for each token.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from model.engine.contract import Logits
from model.sampling import MAX_TOP_K, SamplingParams

_COLDEST = 1e-5  # a lower temperature leaves only the likeliest token; quotients would overflow
_FIRST_COUNT = 64  # candidates that are asked for at first when there is no top-k


class Sampler:
    """Draws one sequence's tokens; the same seed and logits give the same tokens.

    The order is that of transformers: penalties and biases, temperature, top-k, top-p, min-p.
    Exactly one random number is used for each token, whatever the other sequences do. The
    repetition penalty counts the prompt too; the presence and frequency penalties count the reply
    only, as OpenAI's do.
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
        # The rest of the probability belongs to tokens beyond the candidates, or is a rounding
        # error: it is shared among the candidates in proportion.
        draw = (draw - below) / max(1e-12, 1 - below) * below
        return next((id_ for id_, upto in seen if draw < upto), seen[-1][0])

    def _nucleus(
        self, likeliest_first: Iterator[tuple[int, float]]
    ) -> tuple[list[tuple[int, float]], float]:
        """Return the pairs that top-p and min-p leave, and the sum of their probabilities.

        Top-p (Holtzman et al. 2020) keeps the smallest set that has at least this probability;
        min-p (Nguyen et al. 2024) keeps tokens with at least this share of the first one's.
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
        """Return the new logits of tokens that have a penalty (Keskar et al. 2019) or a bias."""
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
        count, seen = 1 if greedy else self.params.top_k or _FIRST_COUNT, 0
        while True:
            top = logits.top(count, skipped)
            for pair in top[seen:]:
                while waiting and waiting[0][1] > pair[1]:
                    yield waiting.popleft()
                yield pair
            if len(top) < count or count == MAX_TOP_K:
                break
            seen, count = count, min(count * 8, MAX_TOP_K)
        yield from waiting


def _logsumexp(values: Sequence[float]) -> float:
    largest = max(values)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))
