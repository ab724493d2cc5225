"""A model's log probabilities of a text's tokens, beside those of another model."""

import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from model.baked.file import BakedModel
from model.engine.contract import Work
from model.engine.native import MAX_TOKENS, SLOTS, NativeEngine, NativeLogits, divergence
from model.evaluation.windows import Window, windows

DECODED = 32  # tokens for the rate of decoding
RUNS = 3  # of each rate; the fastest counts, which is the least disturbed one

Progress = Callable[[int, int], None]  # positions that are scored, and all of them


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass
class Scores:
    """What was found of each scored token, in the order of the text; nats.

    Without another model, only `loss` is filled.
    """

    loss: "array[float]" = field(default_factory=lambda: array("d"))  # -log P(token)
    other_loss: "array[float]" = field(default_factory=lambda: array("d"))
    divergence: "array[float]" = field(default_factory=lambda: array("d"))  # of ours from the other
    same: int = 0  # places at which both find the same token the likeliest

    def __add__(self, more: "Scores") -> "Scores":
        return Scores(
            self.loss + more.loss,
            self.other_loss + more.other_loss,
            self.divergence + more.divergence,
            self.same + more.same,
        )


def score(
    engine: NativeEngine,
    other: NativeEngine | None,
    tokens: Sequence[int],
    size: int,
    stride: int,
    progress: Progress = no_progress,
) -> Scores:
    """Score a text by a sliding window of `size` tokens (see `windows`).

    Memory does not grow with the text but by 24 bytes a token. `ArithmeticError` when a model's
    logits are not numbers.
    """
    found, done = Scores(), 0
    spans = list(windows(len(tokens), size, stride))
    total = sum(window.end - window.first for window in spans)
    for window in spans:
        for at, ours, theirs in _places(engine, other, tokens, window):
            token = tokens[at + 1]
            found.loss.append(_loss(ours, token))
            if theirs:
                found.other_loss.append(_loss(theirs, token))
                found.divergence.append(divergence(theirs.all(), ours.all()))
                found.same += theirs.top(1)[0][0] == ours.top(1)[0][0]
            done += 1
            if done % SLOTS == 0 or done == total:
                progress(done, total)
    return found


def _places(
    engine: NativeEngine, other: NativeEngine | None, tokens: Sequence[int], window: Window
) -> Iterator[tuple[int, NativeLogits, NativeLogits | None]]:
    """Read a window; yield each place before a scored token, with the logits there."""
    engines = [engine, other] if other else [engine]
    # What precedes the first scored token is only read; the last token has no one to predict.
    before, end = window.first - 1, window.end - 1
    opened = [(each, each.new_sequence(capacity=window.end - window.start)) for each in engines]
    for at in range(window.start, before, MAX_TOKENS):
        for each, sequence in opened:
            each.forward([Work(sequence, tokens[at : min(at + MAX_TOKENS, before)], False)])
    for at in range(before, end, SLOTS):
        part = tokens[at : min(at + SLOTS, end)]
        read = [each.forward_places(sequence, part, len(part)) for each, sequence in opened]
        for place, ours in enumerate(read[0]):
            yield at + place, ours, read[1][place] if other else None
    for each, sequence in opened:
        each.release(sequence)


def _loss(logits: NativeLogits, token: int) -> float:
    loss = logits.logsumexp(1.0, ()) - logits.at([token])[0]
    if not math.isfinite(loss):
        raise ArithmeticError("a logit is not a number: the weights are damaged")
    return loss


@dataclass(frozen=True)
class Rates:
    """Tokens a second of one sequence."""

    prefill: float  # of `read` tokens
    decode: float  # of `DECODED` tokens after them
    read: int


def rates(engine: NativeEngine, tokens: Sequence[int]) -> Rates:
    """Measure how fast an engine reads these tokens and writes after them."""
    prefill, decode = math.inf, math.inf
    for _ in range(RUNS):
        sequence = engine.new_sequence(capacity=len(tokens) + DECODED)
        started = time.perf_counter()
        (logits,) = engine.forward([Work(sequence, tokens)])
        read = time.perf_counter()
        for _ in range(DECODED):
            assert logits is not None
            (logits,) = engine.forward([Work(sequence, [logits.top(1)[0][0]])])
        written = time.perf_counter()
        engine.release(sequence)
        prefill, decode = min(prefill, read - started), min(decode, written - read)
    return Rates(len(tokens) / prefill, DECODED / decode, len(tokens))


def engine_for(model: BakedModel, tokens: int, threads: int = 0) -> NativeEngine:
    """Return an engine with room for one sequence of so many tokens."""
    config = model.config
    room = 2 * 4 * 2 * config.layers * config.hidden_size * (tokens + 64)  # twice the floats'
    return NativeEngine(model, threads=threads, kv_bytes=max(room, 16 << 20), cache_bytes=0)


def percentile(values: Sequence[float], share: float) -> float:
    """Return a quantile, linear between two neighbours as numpy's and torch's default is."""
    ranked = sorted(values)
    at = share * (len(ranked) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (at - below) * (ranked[above] - ranked[below])


def mean(values: Sequence[float]) -> float:
    """Return the mean of one value or more."""
    return math.fsum(values) / len(values)


def together(parts: Sequence[Scores]) -> Scores:
    """Join what was found of several texts."""
    return sum(parts, Scores())
