"""What a smaller vocabulary gains: `python -m bench.cut --rounds 10`.

A random BLOOM-560m with all its 250,680 entries beside itself with 46,145, as many as published
cuts keep. Both are open in one process and decode in turns, so that they share each moment's state
of the machine; what is reported is the median of the rounds, in bench/results/cut.md.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import weights
from bench.engine import RESULTS, machine
from bench.peers import CONTEXTS, STEPS, Native
from model.baked.bake import bake, planned_sizes
from model.baked.cache import baked_copy
from model.checkpoint.folder import Checkpoint
from model.engine.native import default_threads
from model.vocabulary.cut import VocabularyCut

ENTRIES = 46_145


@dataclass(frozen=True)
class Model:
    """A model that is measured."""

    checkpoint: Checkpoint
    path: Path  # of the baked file


@dataclass(frozen=True)
class Found:
    """One model's figures."""

    entries: int
    file: int  # bytes
    read: int  # bytes, for each token
    rates: list[float]  # tokens a second, one for each round


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
    peers = [Native(threads, bits, path=model.path) for model in both]
    prompt = list(range(300, 300 + CONTEXTS[0]))
    rates: list[list[float]] = [[], []]
    for round_ in range(-1, rounds):  # the first one maps the files, and does not count
        for peer, seen in zip(peers, rates, strict=True):
            rate = STEPS / min(peer.run([prompt], STEPS)[1] for _ in range(3))
            if round_ >= 0:
                seen.append(rate)
        print(f"{bits} bits, round {round_ + 1} of {rounds}", file=sys.stderr)
    for peer in peers:
        peer.engine.close()
    one, other = (
        Found(
            model.checkpoint.tokenizer().size,
            model.path.stat().st_size,
            planned_sizes(model.checkpoint, bits).token,
            seen,
        )
        for model, seen in zip(both, rates, strict=True)
    )
    return one, other


def table(found: dict[int, tuple[Found, Found]], described: dict[str, str]) -> str:
    """Return the results as Markdown."""
    rounds = len(next(iter(found.values()))[0].rates)
    facts = ", ".join(described[name] for name in ("processor", "commit", "when"))
    lines = [
        "# A cut vocabulary",
        "",
        f"A BLOOM-560m of random weights, {described['threads']} threads, decoding one sequence of"
        f" {CONTEXTS[0]} tokens; medians of {rounds} rounds, in which both decode in turns.",
        f"Made by `python -m bench.cut` on: {facts}.",
        "",
        "| bits | entries | file | read for each token | tokens a second | to the whole one |",
        "|---|---|---|---|---|---|",
    ]
    for bits, both in found.items():
        whole = both[0]
        for model in both:
            ratios = [a / b for a, b in zip(model.rates, whole.rates, strict=True)]
            least, most = min(ratios), max(ratios)
            ratio = f"{statistics.median(ratios):.2f} ({least:.2f}-{most:.2f})"
            lines.append(
                f"| {bits} | {model.entries:,} | {model.file / 1e6:,.0f} MB"
                f" | {model.read / 1e6:,.0f} MB | {statistics.median(model.rates):.1f}"
                f" | {ratio if model is not whole else '1'} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure at 4 and 8 bits, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=default_threads())
    given = parser.parse_args()
    found = {bits: measure(bits, given.rounds, given.threads) for bits in (4, 8)}
    text = table(found, machine(given.threads))
    Path(RESULTS / "cut.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
