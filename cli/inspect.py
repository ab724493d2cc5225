"""`pibloom inspect`: what a checkpoint holds, and whether it is whole."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.main import Failure, Refused
from model.errors import ModelError
from model.loader import default_model, license_of

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=default_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
def inspect(folder: Path, *, as_json: bool, tensors: bool) -> None:
    """Show what the checkpoint in FOLDER holds; the demo model without FOLDER.

    Headers, shapes and the tokenizer are checked, the same as when it is served.

    \b
    Examples:
      pibloom inspect
      pibloom inspect ~/bloom-560m --tensors
      pibloom inspect ~/bloom-560m --json | jq .parameters
    """
    from model.checkpoint import Checkpoint

    try:
        checkpoint = Checkpoint.open(folder)
        entries = checkpoint.tokenizer().size
    except ModelError as error:
        raise Refused(str(error)) from None
    except ModuleNotFoundError as error:
        raise Failure(f"reading weights needs {error.name}, of the extra 'reference'") from None
    facts = _facts(checkpoint, entries)
    if as_json:
        facts["tensors"] = [
            {"name": t.name, "shape": t.shape, "dtype": t.dtype, "file": t.file, "bytes": t.nbytes}
            for t in checkpoint.tensors
        ]
        click.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if name != "files":
            table.add_row(name.replace("_", " "), _readable(value))
    for file, size in facts["files"].items():
        table.add_row("", f"{file}  {size:,} bytes")
    console.print(table)
    if tensors:
        listing = Table("tensor", "shape", "type", "bytes", "file", box=None, pad_edge=False)
        for t in checkpoint.tensors:
            listing.add_row(t.name, "×".join(map(str, t.shape)), t.dtype, f"{t.nbytes:,}", t.file)
        console.print(listing)


def _facts(checkpoint: "Checkpoint", entries: int) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "folder": str(checkpoint.folder),
        "architecture": "BLOOM",
        "parameters": checkpoint.parameters,
        "weights_bytes": checkpoint.size_bytes,
        "types": sorted({tensor.dtype for tensor in checkpoint.tensors}),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "head_size": config.head_size,
        "embedding_rows": config.vocab_size,
        "tokenizer_entries": entries,
        "max_context": config.max_context,
        "license": license_of(checkpoint.folder),
        "files": {path.name: path.stat().st_size for path in checkpoint.files},
    }


def _readable(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case list():
            return ", ".join(map(str, value))
        case None:
            return "not stated"
        case _:
            return str(value)
