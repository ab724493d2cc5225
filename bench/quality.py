"""What rounding costs, beside llama.cpp's formats: `make bench-quality`.

Two small models of quite different text, the demo and one of Python's source code, each in every
format and run by the engine that the format is made for. The logits before each token of held-out
text, in windows of 512 tokens, are compared with float32's (our engine's, which equal
transformers'). llama.cpp and its quantiser are built from the sources of llama-cpp-python
(bench/llama_cpp.sh). An importance matrix ("imatrix") and our calibration "on text" are given the
same text, of the kind that the model was trained on; "on other text", what the other model was
trained on; "calibrated" alone takes what the model writes itself. Results go to bench/results:
quality.md, quality.json, quality.svg.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import second_model
from bench.engine import commit, now, processor
from model.baked.file import BakedModel
from model.demo.corpus import documents, languages
from model.engine.native import SLOTS, default_threads
from model.evaluation.measure import engine_for
from model.names import default_model
from model.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
LLAMA = ROOT / ".venv" / "llama.cpp"
WINDOW, WINDOWS = 512, 16
CALIBRATION = 400_000  # characters
Result = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model, and texts."""

    name: str
    folder: Path
    held_out: Iterator[str]  # what it is measured on, and was not trained on
    seen: Iterator[str]  # of the kind that it was trained on, for calibrating
    other: Iterator[str]  # of another kind


@dataclass(frozen=True)
class Format:
    """One of llama.cpp's, as llama-quantize is asked for it."""

    kind: str
    imatrix: bool = False
    embedding: str = ""  # another kind for the word embedding, which is the output head too

    @property
    def name(self) -> str:
        """What the table calls it."""
        with_ = [f"embedding {self.embedding}"] if self.embedding else []
        with_ += ["imatrix"] if self.imatrix else []
        return ", ".join([self.kind, *with_])


FORMATS = [
    Format("Q8_0"),
    Format("Q6_K"),
    Format("Q5_K_M"),
    *(Format(kind, imatrix) for kind in ("Q4_K_M", "Q4_K_S", "Q4_1") for imatrix in (False, True)),
    *(Format("IQ4_NL", imatrix, "Q8_0") for imatrix in (False, True)),
    Format("Q4_0", embedding="Q8_0"),
    Format("Q4_0"),
]
OURS = {  # options of `pibloom bake`
    "8 bits": ("--bits", "8"),
    "4 bits": ("--bits", "4"),
    "4 bits, calibrated": ("--bits", "4", "--calibrate"),
    "4 bits, calibrated on text": ("--bits", "4", "--calibrate", "{seen}"),
    "4 bits, calibrated on other text": ("--bits", "4", "--calibrate", "{other}"),
    "8 bits, calibrated": ("--bits", "8", "--calibrate"),
}


def subjects() -> Iterator[Subject]:
    """Yield the models, training the second one first if need be."""
    spoken = languages()
    yield Subject(
        "the demo model",
        default_model(),
        documents(spoken, 99, held_out=True),
        documents(spoken, 7, held_out=False),
        second_model.texts(held_out=False),
    )
    yield Subject(
        "a model of Python's source code",
        second_model.folder(),
        second_model.texts(held_out=True),
        second_model.texts(held_out=False),
        documents(spoken, 7, held_out=False),
    )


def windows_of(tokenizer: Tokenizer, texts: Iterator[str]) -> list[list[int]]:
    """Return disjoint windows of the texts, put one after the other."""
    ids: list[int] = []
    while len(ids) < WINDOW * WINDOWS:
        ids += tokenizer.ids(next(texts))
    return [ids[WINDOW * at : WINDOW * (at + 1)] for at in range(WINDOWS)]


def our_logits(path: Path, windows: list[list[int]]) -> "np.ndarray[Any, Any]":
    """Return the logits before each token but the first of each window."""
    engine = engine_for(BakedModel(path), WINDOW, default_threads())
    found = []
    for window in windows:
        sequence = engine.new_sequence(capacity=WINDOW)
        for at in range(0, WINDOW - 1, SLOTS):
            part = window[at : min(at + SLOTS, WINDOW - 1)]
            for logits in engine.forward_places(sequence, part, len(part)):
                found.append(np.array(logits.all(), np.float32))
        engine.release(sequence)
    engine.close()
    return np.stack(found)


def their_logits(model: Path, windows: Path) -> tuple["np.ndarray[Any, Any]", float]:
    """Return llama.cpp's logits, and its bits a weight."""
    out = model.with_suffix(".npy")
    printed = llama(str(model), str(windows), str(out))
    logits = np.load(out)
    out.unlink()
    return logits, float(json.loads(printed.splitlines()[-1])["bits"])


def llama(*arguments: str) -> str:
    """Run bench.llama_logits with llama.cpp's own Python."""
    paths = os.pathsep.join(map(str, (ROOT, LLAMA / "source")))
    settings = {"PYTHONPATH": paths, "LLAMA_CPP_LIB_PATH": str(LLAMA / "build" / "bin")}
    return run(LLAMA / "bin" / "python", "-m", "bench.llama_logits", *arguments, **settings)


def run(*command: str | Path, **settings: str) -> str:
    """Run a program and return what it prints; its complaint is shown when it fails."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ | settings, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def compare(reference: "np.ndarray[Any, Any]", logits: "np.ndarray[Any, Any]") -> Result:
    """Return the divergence from the reference, and how often the likeliest token is the same."""
    found = []
    for at in range(0, len(reference), 256):
        p, q = (_log_softmax(each[at : at + 256]) for each in (reference, logits))
        found.append((np.exp(p) * (p - q)).sum(-1))
    divergence = np.concatenate(found)
    return {
        "mean": float(divergence.mean()),
        "percentile_99": float(np.quantile(divergence, 0.99)),
        "same": float((reference.argmax(-1) == logits.argmax(-1)).mean()),
    }


def _log_softmax(logits: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    result: np.ndarray[Any, Any] = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result


def measure(subject: Subject, place: Path) -> dict[str, Result]:
    """Measure each format of one model; files are written to `place` and deleted."""
    print(f"{subject.name}: float32", file=sys.stderr)
    texts = {"seen": place / "seen.txt", "other": place / "other.txt"}
    texts["seen"].write_text("".join(_until(subject.seen, CALIBRATION)), encoding="utf-8")
    texts["other"].write_text("".join(_until(subject.other, CALIBRATION)), encoding="utf-8")
    exact = place / "float32.bloom"
    _bake_float32(subject.folder, exact)
    windows = windows_of(BakedModel(exact).tokenizer(), subject.held_out)
    (place / "windows.json").write_text(json.dumps(windows))
    reference = our_logits(exact, windows)
    found: dict[str, Result] = {}
    for name, chosen in OURS.items():
        path = place / "ours.bloom"
        pibloom = (sys.executable, "-m", "cli.main", "bake", subject.folder, "-o", path)
        run(*pibloom, *(option.format_map(texts) for option in chosen))
        model = BakedModel(path)
        bits = 8 * sum(each.nbytes for each in model.tensors) / model.metadata["parameters"]
        found[f"piBLOOM, {name}"] = {"bits": bits} | compare(reference, our_logits(path, windows))
        _tell(f"piBLOOM, {name}", found)
    llama(str(subject.folder), str(place / "float32.gguf"))
    binaries = LLAMA / "build" / "bin"
    imatrix = ("-m", place / "float32.gguf", "-f", texts["seen"], "-o", place / "im.gguf")
    run(binaries / "llama-imatrix", *imatrix, "-c", str(WINDOW), "--chunks", "64")
    for each in FORMATS:
        path = place / "theirs.gguf"
        options = ["--imatrix", str(place / "im.gguf")] if each.imatrix else []
        options += ["--token-embedding-type", each.embedding.lower()] if each.embedding else []
        run(binaries / "llama-quantize", *options, place / "float32.gguf", path, each.kind)
        logits, bits = their_logits(path, place / "windows.json")
        found[each.name] = {"bits": bits} | compare(reference, logits)
        _tell(each.name, found)
    return found


def _tell(name: str, found: dict[str, Result]) -> None:
    print(f"  {name}: {found[name]['bits']:.2f} bits, {found[name]['mean']:.2e}", file=sys.stderr)


def _until(texts: Iterator[str], characters: int) -> Iterator[str]:
    length = 0
    for text in texts:
        yield text
        length += len(text)
        if length >= characters:
            return


def _bake_float32(folder: Path, path: Path) -> None:
    from model.baked.bake import bake
    from model.checkpoint.folder import Checkpoint

    bake(Checkpoint.open(folder), path, bits=32)


def table(results: Result) -> str:
    """Write the results as Markdown."""
    lines = ["# What rounding costs", "", *_note(__doc__ or ""), ""]
    lines += [f"- {name}: {value}" for name, value in results["machine"].items()]
    for name, found in results["models"].items():
        lines += ["", f"## On {name}", ""]
        columns = ("", "bits a weight in all", "mean divergence", "99th percentile", "same token")
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for kind, each in sorted(found.items(), key=lambda item: item[1]["mean"]):
            bold = "**" if kind.startswith("piBLOOM") else ""
            lines.append(
                f"| {bold}{kind}{bold} | {each['bits']:.2f} | {each['mean']:.2e}"
                f" | {each['percentile_99']:.2e} | {each['same']:.2%} |"
            )
    return "\n".join(lines) + "\n"


def _note(text: str) -> list[str]:
    _, _, body = text.partition("\n\n")
    return ["Made by `make bench-quality`. Divergence is in nats.", "", *body.strip().splitlines()]


def plot(results: Result) -> None:
    """Draw the mean divergence of each format, a panel for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = results["models"]
    figure, panels = pyplot.subplots(
        1, len(models), figsize=(7 * len(models), 5.5), layout="constrained", squeeze=False
    )
    for axes, (name, found) in zip(panels[0], models.items(), strict=True):
        ranked = sorted(found.items(), key=lambda item: item[1]["mean"], reverse=True)
        labels = [f"{kind}: {each['bits']:.2f} bits" for kind, each in ranked]
        colors = ["#7a1f5c" if kind.startswith("piBLOOM") else "#c4b8d0" for kind, _ in ranked]
        bars = axes.barh(labels, [each["mean"] for _, each in ranked], color=colors)
        axes.bar_label(bars, fmt=lambda value: f" {value:.1e}", fontsize=8)
        axes.set(xscale="log", xlabel="mean KL divergence from float32, nats", title=name)
        axes.margins(x=0.15)
        axes.grid(alpha=0.3, axis="x")
    figure.savefig(RESULTS / "quality.svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Measure, and write what was found."""
    started = time.monotonic()
    models = {}
    for subject in subjects():
        with tempfile.TemporaryDirectory() as place:
            models[subject.name] = measure(subject, Path(place))
    described = {
        "processor": processor(),
        "commit": commit(),
        "llama.cpp": f"llama-cpp-python {(LLAMA / 'built').read_text().strip()}",
        "when": now(),
    }
    results: Result = {"machine": described, "models": models}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "quality.md").write_text(table(results))
    plot(results)
    print(table(results))
    print(f"{time.monotonic() - started:.0f} seconds", file=sys.stderr)


if __name__ == "__main__":
    main()
