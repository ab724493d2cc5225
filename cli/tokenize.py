"""`pibloom tokenize`: a text as tokens."""

from pathlib import Path

import click

from cli.main import Refused
from cli.model import model_option
from cli.text import print_json, read_text
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
    from model.baked.source import open_tokenizer

    try:
        encoding = open_tokenizer(model).encode(read_text(text))
    except ModelError as error:
        raise Refused(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        fields = {"ids": encoding.ids, "pieces": encoding.pieces, "offsets": encoding.offsets}
        print_json(fields | {"count": len(encoding.ids)})
        return
    # Written by hand, the piece last: rich takes minutes to measure half a million rows.
    spans = [f"{start}-{end}" for start, end in encoding.offsets]
    width = max(map(len, ["characters", *spans]))
    click.echo(f"{'id':<6}  {'characters':<{width}}  piece")
    for id_, span, piece in zip(encoding.ids, spans, encoding.pieces, strict=True):
        print(f"{id_:<6}  {span:<{width}}  {_visible(piece)}")
    click.echo(f"{len(encoding.ids)} tokens")


def _visible(piece: str) -> str:
    """Show blanks, and what would move the terminal's cursor."""
    piece = piece.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")
    if piece.isprintable():
        return piece
    return "".join(each if each.isprintable() else f"<U+{ord(each):04X}>" for each in piece)
