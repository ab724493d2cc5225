"""`pibloom eval`: how good a model is on a text, and what rounding its weights cost."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.main import Failure, Refused
from cli.model import ModelPath
from cli.progress import progress_bar
from cli.text import Readable, megabytes, print_json, read_text_file, say, table_console, visible
from model.errors import ModelError
from model.names import default_model

if TYPE_CHECKING:
    from model.baked.file import BakedModel
    from model.evaluation.measure import Progress, Scores
    from model.text.tokenizer import Tokenizer

DEMO_TEXT = "the demo model's held-out text (English, Arabic, Chinese, Hindi; Apache-2.0)"
DEMO_SEED, DEMO_TOKENS = 99, 4096
LARGEST_WINDOW = 2048  # by default
READ = 512  # tokens at most, for the rate of reading


@dataclass(frozen=True)
class Text:
    """A text to be evaluated on."""

    name: str
    ids: list[int]


@click.command("eval")
@click.argument("model", type=ModelPath(), default=default_model)
@click.option(
    "--text",
    "texts",
    type=Readable(),
    multiple=True,
    metavar="FILE",
    help="UTF-8 text, - for standard input; may be given several times."
    "  [default: the demo model's held-out text]",
)
@click.option(
    "--against",
    type=ModelPath(),
    metavar="OTHER",
    help="What to compare with: another model.bloom, or a checkpoint folder or name, in float32."
    "  [default: MODEL in float32, if it is a folder or name]",
)
@click.option("--alone", is_flag=True, help="Compare with nothing.")
@click.option(
    "--bits",
    type=click.Choice(["8", "4", "32"]),
    help="Bits at which a folder or name is evaluated.  [default: 8]",
)
@click.option(
    "--window",
    type=click.IntRange(2),
    help="Tokens that the model sees at once.  [default: its context, at most 2048]",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    help="Tokens from one window to the next.  [default: half a window]",
)
@click.option(
    "--tokens",
    type=click.IntRange(2),
    help="Use the first so many tokens of each text.  [default: all; of the demo's text 4096]",
)
@click.option("--threads", type=click.IntRange(1, 256), help="[default: one for each core]")
@click.option("--no-speed", is_flag=True, help="Do not measure tokens a second.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--plot",
    type=Readable(),
    metavar="FILE",
    help="Draw the rounding error of each layer's matrices, as .png or .svg.",
)
def eval(
    model: Path,
    texts: tuple[Path, ...],
    against: Path | None,
    *,
    alone: bool,
    bits: str | None,
    window: int | None,
    stride: int | None,
    tokens: int | None,
    threads: int | None,
    no_speed: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure MODEL, a baked file, a checkpoint folder or a name on the hub: the demo by default.

    Perplexity is that of a sliding window: each window begins --stride tokens after the one
    before, and a token is scored once, in the first window that holds it. The divergence
    (Kullback-Leibler) of the next token's distribution from float32's, and how often both find
    the same token the likeliest, say what rounding cost. Float32 needs 4 bytes a weight on disk,
    in the cache, where pibloom models lists it.

    \b
    Examples:
      pibloom eval
      pibloom eval ~/bloom-560m --bits 4 --text novel.txt
      pibloom eval mine.bloom --against ~/bloom-560m --json
      pibloom eval mine.bloom --against theirs.bloom --text a.txt --text b.txt
      pibloom eval mine.bloom --plot errors.svg
    """
    from model.baked.file import is_baked
    from model.baked.source import model_name, open_tokenizer

    if bits and is_baked(model):
        raise click.UsageError("--bits is for a folder or a name; a baked file has its own")
    if alone and against:
        raise click.UsageError("--alone compares with nothing, and --against with a model")
    if plot:
        _check_plot(plot)
    try:
        ours = _open(model, int(bits or 8))
        if against is None and not alone and not is_baked(model) and ours.bits != 32:
            against = model
        tokenizer = ours.tokenizer()
        # Before minutes are spent on a copy in float32.
        if against and open_tokenizer(against).compiled != tokenizer.compiled:
            raise Refused(
                f"{visible(model_name(against))} has another tokenizer than"
                f" {visible(model_name(model))}: their distributions cannot be compared"
            )
        theirs = _open(against, 32) if against else None
        size = window or min(ours.config.max_context, LARGEST_WINDOW)
        step = stride or max(1, size // 2)
        smallest = min(each.config.max_context for each in (ours, theirs) if each)
        if size > smallest:
            raise click.UsageError(f"--window is {size} tokens, and the context {smallest}")
        if step > size:
            raise click.UsageError(f"--stride is {step} tokens, and the window {size}")
        read = [_read(path, tokenizer, tokens) for path in texts] or [
            _demo_text(tokenizer, tokens or DEMO_TOKENS)
        ]
        errors = _errors(ours) if plot else {}
        if plot and not errors:
            raise click.UsageError(f"--plot: {visible(str(model))} holds no rounding errors")
        facts = _measure(ours, theirs, read, size, step, threads or 0, speed=not no_speed)
    except (ModelError, ArithmeticError) as error:
        raise Refused(str(error)) from None
    if plot:
        from model.evaluation.plot import draw

        draw(errors, f"{ours.metadata.get('name')}, {ours.bits} bits", plot)
    if as_json:
        print_json(facts, indent=2)
    else:
        _print(facts)
        if plot:
            say(f"{visible(str(plot))}: the rounding error by layer")
        changed = any(ours.metadata.get(change) for change in ("adapter", "cut"))
        if theirs is None and not alone and ours.bits != 32 and not changed:
            say("--against its checkpoint folder would say what rounding cost")


def _check_plot(path: Path) -> None:
    """Refuse a plot that cannot be written, before minutes are spent."""
    from importlib.util import find_spec

    if path.suffix not in (".png", ".svg"):
        raise click.UsageError(f"--plot writes .png or .svg, not {visible(path.name)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise click.UsageError(f"--plot: {visible(str(path))} cannot be a file here")
    if not os.access(path.absolute().parent, os.W_OK):
        raise click.UsageError(f"--plot: {visible(str(path.absolute().parent))} is read-only")
    if find_spec("matplotlib") is None:
        raise Failure("--plot needs matplotlib; install piBLOOM with its extra 'plot'")


def _open(path: Path, bits: int) -> "BakedModel":
    """Open a baked file, or a checkpoint folder's copy in the cache."""
    from model.baked.file import BakedModel, is_baked

    if not is_baked(path):
        from model.baked.cache import baked_copy
        from model.baked.source import model_name

        with progress_bar(f"baking {visible(model_name(path))} at {bits} bits") as progress:
            path = baked_copy(path, bits, progress)
    model = BakedModel(path)
    _ = model.config  # says so when the file holds a tokenizer alone
    if model.tokenizer().size != model.n_vocab:
        raise ModelError(f"{path} cannot be used: its tokenizer is not the one of its weights")
    return model


def _read(path: Path, tokenizer: "Tokenizer", most: int | None) -> Text:
    if path.is_dir():
        raise click.UsageError(f"{visible(str(path))} is a folder; --text is a file")
    text = read_text_file(path)
    if not text:
        raise click.UsageError(f"{visible(str(path))} is empty")
    return _text(str(path), tokenizer.ids(text)[:most])


def _demo_text(tokenizer: "Tokenizer", most: int) -> Text:
    from model.demo import corpus

    ids: list[int] = []
    documents = corpus.documents(corpus.languages(), DEMO_SEED, held_out=True)
    while len(ids) < most:
        ids += tokenizer.ids(next(documents))
    return _text(DEMO_TEXT, ids[:most])


def _text(name: str, ids: list[int]) -> Text:
    if len(ids) < 2:
        raise click.UsageError(
            f"{visible(name)} is too short: a token is predicted from the one before it, and there"
            f" {'is 1 token' if ids else 'are none'}"
        )
    return Text(name, ids)


def _errors(model: "BakedModel") -> dict[str, list[float]]:
    from model.evaluation.plot import errors_by_layer

    return errors_by_layer(model.metadata.get("errors", ()))


def _measure(
    ours: "BakedModel",
    theirs: "BakedModel | None",
    texts: list[Text],
    size: int,
    stride: int,
    threads: int,
    *,
    speed: bool,
) -> dict[str, Any]:
    """Return all that was found, in the shape of --json."""
    from model.evaluation.measure import engine_for, rates, score, together
    from model.evaluation.windows import windows

    engine = engine_for(ours, size, threads)
    other = engine_for(theirs, size, threads) if theirs else None
    rows = []
    with _progress("evaluating", len(texts)) as progress:
        for number, text in enumerate(texts):
            rows.append(score(engine, other, text.ids, size, stride, progress(number)))
    bytes_of = ours.tokenizer().bytes_of
    sizes = [
        sum(
            len(bytes_of(id_))
            for window in windows(len(text.ids), size, stride)
            for id_ in text.ids[window.first : window.end]
        )
        for text in texts
    ]
    facts: dict[str, Any] = {
        "model": _described(ours),
        "against": _described(theirs) if theirs else None,
        "window": size,
        "stride": stride,
        "texts": [
            {"name": text.name, "tokens": len(text.ids)} | _summary(scores, scored)
            for text, scores, scored in zip(texts, rows, sizes, strict=True)
        ],
        **_summary(together(rows), sum(sizes)),
        "speed": None,
    }
    if speed:
        longest = max(texts, key=lambda text: len(text.ids))
        room = max(1, size - 64)  # `engine_for` has 64 more, for what is written
        found = rates(engine, longest.ids[: min(READ, room)])
        facts["speed"] = asdict(found) | {"instructions": engine.isa}
    return facts


def _described(model: "BakedModel") -> dict[str, Any]:
    parameters = model.metadata.get("parameters")
    weights = sum(tensor.nbytes for tensor in model.tensors)
    return {
        "file": str(model.path),
        "name": model.metadata.get("name"),
        "bits": model.bits,
        "bytes": model.size_bytes,
        "bits_a_weight": 8 * weights / parameters if parameters else None,
    }


def _summary(scores: "Scores", size: int) -> dict[str, Any]:
    """Return the figures of a text, or of all together; `size`: bytes of the scored tokens."""
    from model.evaluation.measure import mean, percentile

    found: dict[str, Any] = {
        "scored": len(scores.loss),
        "perplexity": math.exp(mean(scores.loss)),
        "bits_a_byte": math.fsum(scores.loss) / math.log(2) / max(size, 1),
        "against_perplexity": None,
        "divergence": None,
        "agreement": None,
    }
    if scores.divergence:
        found["against_perplexity"] = math.exp(mean(scores.other_loss))
        found["divergence"] = {
            "mean": mean(scores.divergence),
            "median": percentile(scores.divergence, 0.5),
            "percentile_99": percentile(scores.divergence, 0.99),
        }
        found["agreement"] = scores.same / len(scores.divergence)
    return found


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    against, divergence, speed = facts["against"], facts["divergence"], facts["speed"]
    table.add_row("model", _title(facts["model"]))
    if against:
        table.add_row("against", _title(against))
    for text in facts["texts"]:
        table.add_row("text", f"{visible(text['name'])}: {text['tokens']:,} tokens")
    table.add_row("window", f"{facts['window']:,} tokens, a new one each {facts['stride']:,}")
    for scores in [*(facts["texts"] if len(facts["texts"]) > 1 else ()), facts]:
        of = f", {visible(scores['name'])}" if "name" in scores else ""
        other = f" (against: {scores['against_perplexity']:.4f})" if against else ""
        table.add_row("perplexity", f"{scores['perplexity']:.4f}{other}{of}")
    table.add_row("bits a byte", f"{facts['bits_a_byte']:.4f}")
    if divergence:
        row = "mean {mean:.2e}, median {median:.2e}, 99th percentile {percentile_99:.2e} nats"
        table.add_row("divergence", row.format(**divergence))
        table.add_row("likeliest token", f"{facts['agreement']:.2%} the same")
    if speed:
        table.add_row("reading", f"{speed['prefill']:,.1f} tokens a second, of {speed['read']:,}")
        table.add_row("writing", f"{speed['decode']:,.1f} tokens a second, after them")
    table_console().print(table)


def _title(model: dict[str, Any]) -> str:
    bits = f"{model['bits']} bits" if model["bits"] != 32 else "float32"
    mean = model["bits_a_weight"]
    stored = f", {mean:.2f} bits a weight in all" if mean else ""
    return f"{visible(str(model['name']))}: {bits}{stored}, {megabytes(model['bytes'])}"


@contextmanager
def _progress(title: str, texts: int) -> "Iterator[Any]":
    """Show how much of the texts is scored, on standard error if it is a terminal."""
    from model.evaluation.measure import no_progress

    if not sys.stderr.isatty():
        yield lambda _: no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:

        def of_text(number: int) -> "Progress":
            task = bar.add_task(title if texts == 1 else f"{title} text {number + 1} of {texts}")
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield of_text
