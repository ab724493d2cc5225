"""`pibloom bake`: a checkpoint folder becomes one file, `model.bloom`."""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.calibrate import calibration, cost_of_outputs
from cli.cut import CutOptions, cut_options, print_report
from cli.main import Refused
from cli.model import ModelPath
from cli.progress import progress_bar
from cli.text import Readable, megabytes, print_json, say, visible
from model.baked.file import is_baked
from model.errors import ModelError
from model.text.presets import PRESETS

if TYPE_CHECKING:
    from model.baked.bake import QuantisationError
    from model.checkpoint.adapter import Adapter
    from model.checkpoint.folder import Checkpoint
    from model.text.chat import ChatSource
    from model.vocabulary.cut import VocabularyCut
    from model.vocabulary.report import CutReport


@click.command()
@click.argument("checkpoint", type=ModelPath())
@click.argument("texts", nargs=-1, type=Readable(), metavar="[TEXT]...")
@click.option(
    "-o",
    "--output",
    type=Readable(),
    default=Path("model.bloom"),
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--bits",
    type=click.Choice(["8", "4"]),
    default="8",
    show_default=True,
    help="Bits of a weight; 4 is a mixture of 4, 5, and 6 in the word embedding.",
)
@click.option(
    "--adapter",
    "adapters",
    type=Readable(),
    multiple=True,
    help="A LoRA adapter's folder, as PEFT saves it, to be merged into the weights.",
)
@click.option(
    "--baked-by",
    envvar="PIBLOOM_BAKED_BY",
    metavar="NAME",
    help="Who bakes it, for the file's card; PIBLOOM_BAKED_BY. Nobody is named without it.",
)
@click.option("--any-base", is_flag=True, help="Take an adapter of a model of another name.")
@click.option(
    "--chat-template",
    metavar="NAME|FILE",
    default="",
    help=f"How a chat becomes a prompt: {', '.join(PRESETS)}, or a Jinja file.  [default: the"
    " model's own, or the preset for its name]",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Round weights by what that does to the outputs on TEXT, or on what the model writes"
    " itself; needs torch, and minutes to hours.",
)
@cut_options
@click.option("--tokenizer-only", is_flag=True, help="Write the tokenizer alone, a few MB.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print each tensor's error, and what a cut changes, as JSON.",
)
def bake(
    checkpoint: Path,
    texts: tuple[Path, ...],
    output: Path,
    bits: str,
    adapters: tuple[Path, ...],
    *,
    calibrate: bool,
    baked_by: str | None,
    any_base: bool,
    chat_template: str,
    keep_scripts: tuple[str, ...],
    keep_tokens_of: tuple[Path, ...],
    dry_run: bool,
    tokenizer_only: bool,
    as_json: bool,
) -> None:
    """Quantise the checkpoint folder CHECKPOINT into one file that is served in place.

    CHECKPOINT may be a name on the hub, which is pulled. With --tokenizer-only, it may be a baked
    file, too. The same input gives the same bytes, so the file names no date, unless
    SOURCE_DATE_EPOCH gives one.

    With --calibrate, the weights' rounding is chosen by what it does on tokens of TEXT, UTF-8
    files, or - for standard input; on text of another kind it helps less. A bake that was
    interrupted goes on where it was when it is called again. Bytes depend on the machine then.

    \b
    Examples:
      pibloom bake ~/bloom-560m -o bloom-560m.bloom
      pibloom bake bigscience/bloomz-560m --bits 4
      pibloom bake bigscience/bloom-560m --adapter ~/my-lora -o mine.bloom
      pibloom bake ~/my-belle --chat-template belle
      pibloom bake ~/bloom-560m --bits 4 --calibrate
      pibloom bake ~/bloom-560m --bits 4 --calibrate notes.txt mails.txt
      pibloom bake ~/bloom-560m --keep-scripts Latin,Han --dry-run
      pibloom bake ~/bloom-560m --keep-scripts Latin --keep-tokens-of notes.txt
      pibloom bake ~/bloom-560m --tokenizer-only -o tokenizer.bloom
    """
    from model.baked import bake as baking
    from model.baked.source import model_name
    from model.calibration.folder import remove_results
    from model.checkpoint.adapter import Adapter
    from model.checkpoint.folder import Checkpoint
    from model.text.chat import ChatSource, ChatTemplate

    if output.suffix != ".bloom":
        raise click.UsageError(f"the output must be called something.bloom, not {output.name}")
    if output.is_dir():
        raise click.UsageError(f"{output} is a folder; the output is a file")
    if texts and not calibrate:
        raise click.UsageError(f"{visible(str(texts[0]))}: a text is for --calibrate")
    if calibrate and (tokenizer_only or dry_run):
        raise click.UsageError("--calibrate is for a bake of the weights")
    if calibrate and is_baked(checkpoint):
        raise click.UsageError(f"{checkpoint} is baked, and its checkpoint folder is calibrated")
    if len(adapters) > 1:
        raise click.UsageError("one adapter is merged at a time: which order and weights several"
                               " would have is not known")  # fmt: skip
    if tokenizer_only and adapters:
        raise click.UsageError(
            "an adapter has no tokenizer, so --tokenizer-only needs no --adapter"
        )
    options = CutOptions(keep_scripts, keep_tokens_of)
    if dry_run and not options:
        raise click.UsageError("--dry-run shows what --keep-scripts or --keep-tokens-of changes")
    if options and is_baked(checkpoint):
        raise click.UsageError(
            f"{checkpoint} is baked, and a vocabulary is cut when its checkpoint folder is; the"
            " tokenizer of a model that was cut is taken out by --tokenizer-only alone"
        )
    if tokenizer_only and chat_template and not options:
        raise click.UsageError("a tokenizer alone has no use for --chat-template")
    signature = baking.Signature(baked_by, _date())
    report = None
    try:
        if tokenizer_only:
            cut, report = _tokenizer_cut(checkpoint, options, chat_template)

            def write() -> list[baking.QuantisationError]:
                baking.bake_tokenizer_only(checkpoint, output, signature, cut)
                return []
        else:
            opened = Checkpoint.open(checkpoint)
            adapter = Adapter.open(adapters[0], opened.config) if adapters else None
            if adapter and not any_base:
                adapter.check_base(model_name(checkpoint))
            chat = None
            if chat_template:
                chat = ChatSource.read(checkpoint, chat_template)
                ChatTemplate.named(chat_template, chat.tokens, opened.tokenizer().hidden)
            if options:
                opened, report = _model_cut(opened, options, chat, int(bits), adapter)

            def write_weights(
                calibrated: baking.Calibrated | None = None,
            ) -> list[baking.QuantisationError]:
                with progress_bar(f"baking {output.name}") as progress:
                    return baking.bake(
                        opened,
                        output,
                        bits=int(bits),
                        adapter=adapter,
                        chat=chat,
                        signature=signature,
                        calibrated=calibrated,
                        progress=progress,
                    )

            def write() -> list[baking.QuantisationError]:
                if calibrate:
                    with calibration(opened, output, int(bits), texts, adapter) as calibrated:
                        return write_weights(calibrated)
                errors = write_weights()
                remove_results(output)
                return errors

        if report and not as_json:
            print_report(report)
        errors = [] if dry_run else write()
    except ModelError as error:
        raise Refused(str(error)) from None
    if as_json:
        described = [asdict(error) for error in errors]
        print_json({"cut": asdict(report), "errors": described} if report else described, indent=2)
        return
    if dry_run:
        return
    say(f"{visible(str(output))}: {megabytes(output.stat().st_size)}")
    second = [error for error in errors if error.is_second]
    first = [error for error in errors if not error.is_second]
    rounded = [error for error in second if error.relative]
    if calibrate:
        say(cost_of_outputs(errors))
    if first and not calibrate:
        say(_cost("rounding", first))
    if second and not rounded:
        say(f"all {len(second)} matrices that GPTQ quantised keep their values")
    elif second:
        say(f"{len(second) - len(rounded)} of {len(second)} matrices that GPTQ quantised keep"
            f" their values; {_cost('a second rounding', rounded)}")  # fmt: skip


def _cost(what: str, errors: list["QuantisationError"]) -> str:
    worst = max(errors, key=lambda error: error.relative)
    typical = sorted(error.relative for error in errors)[len(errors) // 2]
    return (
        f"{what} cost {typical:.2%} of a tensor (the median of {len(errors)}),"
        f" {worst.relative:.2%} at most ({visible(worst.name)})"
    )


def _model_cut(
    checkpoint: "Checkpoint",
    options: CutOptions,
    chat: "ChatSource | None",
    bits: int,
    adapter: "Adapter | None",
) -> "tuple[Checkpoint, CutReport]":
    """Return a checkpoint with a smaller vocabulary, and what that changes."""
    from model.baked.bake import planned_sizes
    from model.text.chat import ChatSource
    from model.vocabulary.report import report_of

    chat = chat or ChatSource.read(checkpoint.folder)
    cut = options.cut(checkpoint.tokenizer(), chat, checkpoint.config.eos_token_ids)
    smaller = checkpoint.cut_to(cut)
    sizes = (planned_sizes(each, bits, adapter) for each in (checkpoint, smaller))
    return smaller, report_of(cut, *sizes)


def _tokenizer_cut(
    folder: Path, options: CutOptions, chat_template: str
) -> "tuple[VocabularyCut | None, CutReport | None]":
    """Cut a folder's tokenizer alone, as its model would be cut; None without such options."""
    if not options:
        return None, None
    from model.checkpoint.generation_config import GenerationConfig
    from model.text.chat import ChatSource, ChatTemplate
    from model.text.tokenizer import Tokenizer
    from model.vocabulary.report import Sizes, report_of

    tokenizer = Tokenizer.open(folder)
    ends = GenerationConfig.open(folder, tokenizer.size).eos_token_ids
    chat = ChatSource.read(folder, chat_template)
    if chat_template:
        ChatTemplate.named(chat_template, chat.tokens, tokenizer.hidden)
    cut = options.cut(tokenizer, chat, ends)
    sizes = (Sizes(len(each.compiled), 0) for each in (tokenizer, cut.tokenizer))
    return cut, report_of(cut, *sizes)


def _date() -> str | None:
    """Return the date that SOURCE_DATE_EPOCH gives, in seconds since 1970."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(
            "SOURCE_DATE_EPOCH must be a whole number of seconds since 1970"
        ) from None
