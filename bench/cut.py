"""What a smaller vocabulary gains: `python -m bench.cut --rounds 15`.

A random BLOOM-560m with all its 250,680 entries beside itself with 46,145, as many as published
cuts keep. Both are open in one process and decode a few tokens in turns, so that they share each
moment's state of the machine. Processor time is reported besides the clock's, since it depends less
on what else the machine does; by default there is one thread, because threads that wait for each
other take it, too. The table goes to bench/results/cut.md.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import weights
from bench.engine import RESULTS, machine
from bench.peers import Native
from model.baked.bake import bake, planned_sizes
from model.baked.cache import baked_copy
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.vocabulary.cut import VocabularyCut

ENTRIES = 46_145
PROMPT = list(range(300, 332))
TOKENS = 8  # of a turn


@dataclass(frozen=True)
class Model:
    """A model that is measured."""

    checkpoint: Checkpoint
    path: Path  # of the baked file


@dataclass(frozen=True)
class Times:
    """Seconds that a decoded token takes."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Found:
    """One model's figures."""

    entries: int
    file: int  # bytes
    read: int  # bytes, for each token
    times: list[Times]  # one for each round


def models(bits: int) -> tuple[Model, Model]:
    """Return the whole model and the cut one, baked first if need be."""
    whole = Checkpoint.open(weights.checkpoint())
    # The random vocabulary's merges are of earlier entries, so its first ones are a whole cut.
    cut = VocabularyCut(whole.tokenizer(), tuple(range(ENTRIES)), ("the first entries",))
    smaller, copy = whole.cut_to(cut), baked_copy(whole.folder, bits)
    path = whole.folder.with_name(f"{copy.stem}-{ENTRIES}.bloom")  # as good as the copy's own name
    if not path.exists():
        bake(smaller, path, bits=bits)
    return Model(whole, copy), Model(smaller, path)


def measure(bits: int, rounds: int, threads: int) -> tuple[Found, Found]:
    """Decode with the whole vocabulary and with the cut one, in turns."""
    both = models(bits)
    engines = [Native(threads, bits, path=model.path).engine for model in both]
    times: list[list[Times]] = [[], []]
    for round_ in range(-1, rounds):  # the first one maps the files, and does not count
        for engine, seen in zip(engines, times, strict=True):
            taken = decode(engine)
            if round_ >= 0:
                seen.append(taken)
        print(f"{bits} bits, round {round_ + 1} of {rounds}", file=sys.stderr)
    for engine in engines:
        engine.close()
    one, other = (
        Found(
            model.checkpoint.tokenizer().size,
            model.path.stat().st_size,
            planned_sizes(model.checkpoint, bits).token,
            seen,
        )
        for model, seen in zip(both, times, strict=True)
    )
    return one, other


def decode(engine: NativeEngine) -> Times:
    """Decode a few tokens after a short prompt."""
    sequence = engine.new_sequence()

    def step(tokens: list[int]) -> list[int]:
        (logits,) = engine.forward([Work(sequence, tokens)])
        assert logits is not None
        return [logits.top(1)[0][0]]

    tokens = step(PROMPT)
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(TOKENS):
        tokens = step(tokens)
    taken = time.perf_counter() - clock, time.process_time() - processor
    engine.release(sequence)
    return Times(taken[0] / TOKENS, taken[1] / TOKENS)


def table(found: dict[int, tuple[Found, Found]], described: dict[str, str]) -> str:
    """Return the results as Markdown."""
    rounds, threads = len(next(iter(found.values()))[0].times), described["threads"]
    facts = ", ".join(described[name] for name in ("processor", "commit", "when"))
    lines = [
        "# A cut vocabulary",
        "",
        f"A BLOOM-560m of random weights, decoding with {threads} thread{'s'[: threads != '1']}"
        f" after a prompt of {len(PROMPT)} tokens; medians of {rounds} rounds, in which both decode"
        f" {TOKENS} tokens in turns. Ratios are within a round; in brackets, the least and the"
        " most.",
        f"Made by `python -m bench.cut` on: {facts}.",
        "",
        "| bits | entries | file | read for each token | ms a token, by the clock"
        " | of the processor | as fast as the whole one, by the clock | by the processor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits, both in found.items():
        whole = both[0]
        for model in both:
            pairs = list(zip(whole.times, model.times, strict=True))
            cells = [
                str(bits),
                f"{model.entries:,}",
                f"{model.file / 1e6:,.0f} MB",
                f"{model.read / 1e6:,.0f} MB",
                f"{1e3 * statistics.median(each.clock for each in model.times):.1f}",
                f"{1e3 * statistics.median(each.processor for each in model.times):.1f}",
                _ratio([before.clock / after.clock for before, after in pairs]),
                _ratio([before.processor / after.processor for before, after in pairs]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(ratios: list[float]) -> str:
    if set(ratios) == {1.0}:
        return "1"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    """Measure at 4 and 8 bits, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    found = {bits: measure(bits, given.rounds, given.threads) for bits in (4, 8)}
    text = table(found, machine(given.threads))
    Path(RESULTS / "cut.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
