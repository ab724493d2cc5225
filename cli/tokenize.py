"""`pibloom tokenize`: a text as tokens."""

import json
from pathlib import Path

import click

from cli.main import Refused
from cli.text import model_option, read_text
from model.errors import ModelError


@click.command()
@click.argument("text", required=False)
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: ids, pieces, offsets, count.")
def tokenize(text: str | None, model: Path, *, as_json: bool) -> None:
    """Show the tokens of TEXT, or of standard input.

    \b
    Examples:
      pibloom tokenize "Hello, 你好"
      pibloom tokenize --json < letter.txt | jq .count
    """
    from model.tokenizer import Tokenizer

    try:
        encoding = Tokenizer.open(model).encode(read_text(text))
    except ModelError as error:
        raise Refused(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        fields = {"ids": encoding.ids, "pieces": encoding.pieces, "offsets": encoding.offsets}
        click.echo(json.dumps(fields | {"count": len(encoding.ids)}, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "piece", "characters", box=None, pad_edge=False)
    for id_, piece, (start, end) in zip(
        encoding.ids, encoding.pieces, encoding.offsets, strict=True
    ):
        table.add_row(str(id_), Text(_visible(piece)), f"{start}-{end}")
    console = Console()
    console.print(table)
    console.print(f"{len(encoding.ids)} tokens")


def _visible(piece: str) -> str:
    return piece.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")
