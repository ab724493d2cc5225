"""`pibloom models`: the models that are on this machine, and how to be rid of one."""

import os
from dataclasses import dataclass
from datetime import datetime

import click

from cli.main import Failure, Refused
from cli.text import megabytes, print_json, table_console, visible
from model.baked import cache
from model.checkpoint.hub.cache import all_pulled, remove
from model.errors import ModelError


@dataclass(frozen=True)
class Row:
    """A model on this machine: a checkpoint, with what was baked of it."""

    name: str  # on the hub, or its folder
    revision: str
    bits: list[int]  # of the baked copies
    size: int  # bytes of the checkpoint, where it is in the hub's cache, and of the copies
    used: float | None  # seconds since the epoch


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def models(context: click.Context, *, as_json: bool) -> None:
    """List the models on this machine: those that were pulled, and what was baked of them.

    \b
    Examples:
      pibloom models
      pibloom models rm bigscience/bloomz-560m
    """
    if context.invoked_subcommand is not None:
        return
    try:
        rows = _rows()
    except ModelError as error:
        raise Refused(str(error)) from None
    if as_json:
        print_json([vars(row) for row in rows], indent=2)
        return
    if not rows:
        click.echo("no model was pulled yet: pibloom pull bigscience/bloomz-560m")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "revision", "baked", "size", "last used"):
        table.add_column(title, overflow="fold")  # `rm` takes a name as it stands here, whole
    for row in rows:
        table.add_row(
            visible(row.name),
            visible(row.revision),
            ", ".join(f"{bits} bits" for bits in sorted(row.bits)) or "-",
            megabytes(row.size),
            datetime.fromtimestamp(row.used).strftime("%Y-%m-%d %H:%M") if row.used else "-",
        )
    table_console().print(table)


@models.command()
@click.argument("name")
def rm(name: str) -> None:
    """Delete the model NAME, as `pibloom models` calls it, with all that was baked of it.

    Of a checkpoint folder that was not pulled, only the baked copies are deleted; NAME may be any
    path to it.
    """
    try:
        pulled = [model for model in all_pulled() if model.name == name]
        folders = (name, os.path.realpath(name))
        copies = [] if pulled else [each for each in cache.copies() if str(each.folder) in folders]
        if not pulled and not copies:
            raise Failure(f"there is no model {visible(name)} here; pibloom models lists them")
        freed = sum(copy.size for copy in copies)
        for model in pulled:
            freed += model.size + sum(
                copy.size for copy in cache.copies() if copy.folder == model.folder
            )
            cache.forget(model.folder)
            remove(model)
        for copy in copies:
            cache.forget(copy.folder)
    except ModelError as error:
        raise Refused(str(error)) from None
    click.echo(f"{visible(name)} is deleted: {megabytes(freed)}")


def _rows() -> list[Row]:
    copies = cache.copies()
    rows = []
    for model in all_pulled():
        own = [copy for copy in copies if copy.folder == model.folder]
        copies = [copy for copy in copies if copy not in own]
        revision = ", ".join((*model.revisions, model.commit[:12]))
        bits = [copy.bits for copy in own]
        size = model.size + sum(copy.size for copy in own)
        used = max((copy.used for copy in own), default=None)
        rows.append(Row(model.name, revision, bits, size, used))
    for folder in sorted({copy.folder for copy in copies}):
        own = [copy for copy in copies if copy.folder == folder]
        used = max(copy.used for copy in own)
        bits, size = [copy.bits for copy in own], sum(copy.size for copy in own)
        rows.append(Row(str(folder), "-", bits, size, used))
    return rows
