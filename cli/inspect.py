"""`pibloom inspect`: what a checkpoint or a baked model holds, and whether it is whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.main import Refused
from cli.model import ModelPath
from cli.text import print_json, table_console, visible
from model.baked.card import AdapterCard, CalibrationCard, CutCard, ModelCard
from model.baked.file import BakedModel, is_baked
from model.baked.source import card_of
from model.errors import ModelError
from model.names import default_model
from model.text.chat import ChatSource, ChatTemplate

if TYPE_CHECKING:
    from model.checkpoint.folder import Checkpoint

Row = dict[str, Any]
_VERIFY = " (--verify reads the rest)"


@click.command()
@click.argument("path", type=ModelPath(), default=default_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--tensors", is_flag=True, help="List every tensor, with its rounding error.")
@click.option("--verify", is_flag=True, help="Read every weight, or every byte of a baked model.")
def inspect(path: Path, *, as_json: bool, tensors: bool, verify: bool) -> None:
    """Show what the checkpoint folder or baked model PATH holds; the demo model without PATH.

    Headers, shapes, the tokenizer and an output head of its own are checked, the same as when it is
    served; with --verify, every weight too. PATH may be a name on the hub, which is pulled.

    \b
    Examples:
      pibloom inspect
      pibloom inspect ~/bloom-560m --tensors
      pibloom inspect bigscience/bloomz-560m
      pibloom inspect model.bloom --verify
      pibloom inspect ~/bloom-560m --json | jq .parameters
    """
    from model.checkpoint.folder import Checkpoint

    try:
        if is_baked(path):
            place, (card, facts, rows) = "file", _baked(BakedModel(path), verify=verify)
        else:
            place, (card, facts, rows) = "folder", _checkpoint(Checkpoint.open(path), verify=verify)
    except ModelError as error:
        raise Refused(str(error)) from None
    if as_json:
        described = {place: str(path)} | card.as_description() | facts
        print_json(described | {"tensors": rows}, indent=2)
        return
    from rich.table import Table

    console = table_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row(place, visible(str(path)))
    for title, text in _card(card):
        table.add_row(title, visible(text))
    for name, value in facts.items():
        if isinstance(value, dict):
            for file, size in value.items():
                table.add_row("", visible(f"{file}  {size:,} bytes"))
        else:
            table.add_row(name.replace("_", " "), _fact(value))
    console.print(table)
    if tensors and rows:
        listing = Table(*(name.replace("_", " ") for name in rows[0]), box=None, pad_edge=False)
        for row in rows:
            listing.add_row(*map(_cell, row.values()))
        console.print(listing)


def _checkpoint(checkpoint: "Checkpoint", *, verify: bool) -> tuple[ModelCard, Row, list[Row]]:
    from model.baked.bake import check_weights, checkpoint_card

    config = checkpoint.config
    tokenizer = checkpoint.tokenizer()
    if verify:
        check_weights(checkpoint)
    chat = ChatSource.read(checkpoint.folder)
    ChatTemplate.of(chat, tokenizer.hidden)
    facts = {
        "architecture": "BLOOM",
        "state": "whole, every weight" if verify else "its headers are whole" + _VERIFY,
        "parameters": checkpoint.parameters,
        "weights_bytes": checkpoint.size_bytes,
        "types": sorted({tensor.dtype for tensor in checkpoint.tensors}),
        **_quantised(checkpoint),
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "heads": config.heads,
        "head_size": config.head_size,
        "embedding_rows": config.vocab_size,
        "tokenizer_entries": tokenizer.size,
        "output_head": _head(checkpoint.has_own_head),
        "max_context": config.max_context,
        "eos_token_ids": list(config.eos_token_ids),
        "chat_template": chat.origin,
        "notes": list(checkpoint.generation.notes),
        "files": {path.name: path.stat().st_size for path in checkpoint.files},
    }
    rows = [
        {
            "name": t.name,
            "shape": list(t.shape),
            "dtype": t.dtype,
            "file": t.file,
            "bytes": t.nbytes,
        }
        for t in checkpoint.tensors
    ]
    return checkpoint_card(checkpoint), facts, rows


def _quantised(checkpoint: "Checkpoint") -> Row:
    """Say how weights were quantised before, and of how many matrices a bake keeps them."""
    if not checkpoint.gptq:
        return {}
    packed = sum(tensor.packed is not None for tensor in checkpoint.tensors)
    return {
        "quantised": str(checkpoint.gptq),
        "values_kept": f"of {len(checkpoint.kept_codes)} of {packed} matrices",
    }


def _baked(model: BakedModel, *, verify: bool) -> tuple[ModelCard, Row, list[Row]]:
    described = model.metadata
    tokenizer = model.tokenizer()
    if verify:
        model.verify()
    facts: Row = {
        "architecture": "BLOOM" if model.bits else "the tokenizer of a BLOOM",
        "state": "whole, every byte" if verify else "its header is whole" + _VERIFY,
        "bytes": model.size_bytes,
    }
    if model.bits:
        config = model.config
        facts |= {
            "parameters": described.get("parameters"),
            "bits": model.bits,
            "layers": config.layers,
            "hidden_size": config.hidden_size,
            "heads": config.heads,
            "head_size": config.head_size,
            "embedding_rows": config.vocab_size,
            "output_head": _head(model.has_own_head),
            "max_context": config.max_context,
            "eos_token_ids": list(config.eos_token_ids),
            "chat_template": described.get("chat_origin"),
            "notes": [
                *described.get("notes", ()),
                *filter(None, (described.get("chat_problem"),)),
            ],
        }
    facts |= {
        "tokenizer_entries": tokenizer.size,
        "tokenizer_bytes": model.tokenizer_section[1],
    }
    errors = {
        error["name"]: error for error in described.get("errors", ()) if isinstance(error, dict)
    }
    rows: list[Row] = []
    for tensor in model.tensors:
        known = tensor.name.replace(".high", ".weight")  # two planes are one tensor of a checkpoint
        error = errors.get(known, {})
        rows.append(
            {
                "name": tensor.name,
                "shape": [tensor.rows, tensor.cols],
                "format": tensor.format,
                "bytes": tensor.nbytes,
                "relative_error": error.get("relative"),
                "largest_error": error.get("largest"),
            }
        )
    return card_of(model), facts, rows


def _head(is_own: bool) -> str:
    return "a matrix of its own" if is_own else "the word embedding"


def _card(card: ModelCard) -> list[tuple[str, str]]:
    """Return a model's card as titles and texts; what was not done to it is left out."""
    facts = {
        "name": card.name,
        "revision": card.revision,
        "license": card.license or "not stated",
        "source": card.source,
        "adapter": card.adapter and _adapter(card.adapter),
        "calibration": card.calibration and _calibration(card.calibration),
        "vocabulary": card.cut and _cut(card.cut),
        "baked with": card.baked_with and f"piBLOOM {card.baked_with}",
        "baked by": card.baked_by,
        "baked on": card.baked_on,
    }
    return [(title, text) for title, text in facts.items() if text]


def _adapter(adapter: AdapterCard) -> str:
    rank = f", rank {adapter.rank}" if adapter.rank else ""
    base = f", trained on {adapter.base}" if adapter.base else ""
    return f"{adapter.name}{rank}{base}"


def _calibration(calibration: CalibrationCard) -> str:
    source = f" of {calibration.source}" if calibration.source else ""
    gain = ""
    if calibration.error_before is not None and calibration.error_after is not None:
        gain = (
            f"; the outputs of all matrices together are {calibration.error_after:.2%} off, without"
            f" it {calibration.error_before:.2%}"
        )
    return f"{calibration.tokens:,} tokens{source}{gain}"


def _cut(cut: CutCard) -> str:
    kept = f": {', '.join(cut.kept)}" if cut.kept else ""
    return f"cut to {cut.entries_after:,} of {cut.entries_before:,} entries{kept}"


def _fact(value: object) -> str:
    """Return a fact as text for people."""
    match value:
        case list():
            return visible(", ".join(map(str, value)) or "none")
        case None:
            return "not stated"
        case _:
            return _text(value)


def _cell(value: object) -> str:
    """Return a cell of the list of tensors."""
    match value:
        case list():
            return "×".join(map(str, value))
        case None:
            return ""
        case _:
            return _text(value)


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:.2g}"
        case int():
            return f"{value:,}"
        case _:
            return visible(str(value))
