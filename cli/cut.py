"""The options of `pibloom bake` that cut a vocabulary, and what they show before it is done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.text import STDIN, Readable, megabytes, table_console, visible
from model.errors import ModelError

if TYPE_CHECKING:
    from model.text.chat import ChatSource
    from model.text.tokenizer import Tokenizer
    from model.vocabulary.cut import VocabularyCut
    from model.vocabulary.report import Change, CutReport


_STDIN_FILE = Path("/dev/stdin")


@dataclass(frozen=True)
class CutOptions:
    """What the user wants to keep."""

    scripts: tuple[str, ...]  # by their Unicode names
    texts: tuple[Path, ...]

    def __bool__(self) -> bool:
        """Whether anything is cut."""
        return bool(self.scripts or self.texts)

    def cut(
        self, tokenizer: "Tokenizer", chat: "ChatSource", eos_token_ids: tuple[int, ...]
    ) -> "VocabularyCut":
        """Choose the entries; besides what is asked for, those that chats and their ends take."""
        from model.vocabulary.chat import tokens_of_chats
        from model.vocabulary.cut import cut_vocabulary

        try:
            return cut_vocabulary(
                tokenizer,
                scripts=self.scripts,
                texts=[_STDIN_FILE if path == STDIN else path for path in self.texts],
                always=tokens_of_chats(chat, tokenizer) | set(eos_token_ids),
            )
        except ModelError as error:
            raise click.UsageError(str(error)) from None


def _scripts(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Return the Unicode names of scripts that are given with commas between them."""
    from model.vocabulary.scripts import scripts_named

    if value is None:
        return ()
    try:
        named = map(scripts_named, value.split(","))
        return tuple(dict.fromkeys(chain.from_iterable(named)))
    except ModelError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def cut_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --keep-scripts, --keep-tokens-of and --dry-run."""
    for option in reversed(
        (
            click.option(
                "--keep-scripts",
                callback=_scripts,
                metavar="SCRIPT,…",
                help="Cut the vocabulary to these scripts, as in Latin,Han.",
            ),
            click.option(
                "--keep-tokens-of",
                type=Readable(),
                metavar="FILE",
                multiple=True,
                help="Cut the vocabulary to the tokens of this text; may be repeated.",
            ),
            click.option(
                "--dry-run", is_flag=True, help="Show what a cut would change, and write nothing."
            ),
        )
    ):
        command = option(command)
    return command


def print_report(report: "CutReport") -> None:
    """Print a report as tables for people."""
    from rich.table import Table

    console = table_console()

    def show(title: str, rows: "Mapping[str, Change]", unit: Callable[[int], str]) -> None:
        table = Table(title, "before", "after", "change", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, change in rows.items():
            before, after = unit(change.before), unit(change.after)
            table.add_row(visible(name), before, after, _share(change))
        console.print(table)
        console.print()

    entries = {script: change for script, change in report.scripts.items() if change.after}
    dropped = {script: change for script, change in report.scripts.items() if not change.after}
    show("entries", {"all": report.entries} | entries, "{:,}".format)
    if dropped:
        count = sum(change.before for change in dropped.values())
        console.print(f"dropped whole ({count:,}): {visible(', '.join(dropped))}\n")
    sizes = {"the file": report.file_bytes, "read for each token": report.token_bytes}
    show("bytes", {name: size for name, size in sizes.items() if size.before}, megabytes)
    show("tokens of a sample text", report.languages, str)


def _share(change: "Change") -> str:
    if change.after == change.before:
        return "="
    return f"{change.after / change.before - 1:+.0%}"
