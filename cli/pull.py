"""`pibloom pull`: a model by its name, from the hub to this machine."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cli.main import Refused
from cli.text import megabytes, say, visible
from model.checkpoint.hub.cache import pulled
from model.checkpoint.hub.client import is_offline
from model.checkpoint.hub.fetch import RemoteModel, fetch
from model.checkpoint.hub.find import find
from model.errors import ModelError
from model.hub_cache import HubName


@click.command()
@click.argument("name")
@click.option("--revision", help="A branch, a tag or a commit; the main branch by default.")
@click.option("--if-needed", is_flag=True, help="Do not ask the hub for a model that is here.")
def pull(name: str, revision: str | None, *, if_needed: bool) -> None:
    """Fetch the model NAME, such as bigscience/bloomz-560m, and print the folder that it is in.

    NAME@REVISION is the same as --revision.

    Only what piBLOOM reads is fetched; what is here already, by any program that uses the hub's
    cache, is not fetched again, and an interrupted pull is continued. HF_TOKEN, HF_ENDPOINT,
    HF_HOME and HF_HUB_OFFLINE are those of huggingface_hub.

    \b
    Examples:
      pibloom pull bigscience/bloomz-560m
      pibloom up --model bigscience/bloomz-560m
      pibloom bake "$(pibloom pull bigscience/bloom-1b7)" -o bloom-1b7.bloom
    """
    model = HubName(name, revision)
    if "@" in name:
        if revision is not None:
            raise click.UsageError("the revision is given twice: by --revision and behind the @")
        name, _, revision = name.partition("@")
        model = HubName(name, revision)
    try:
        folder = model_folder(model) if if_needed or is_offline() else pull_model(*model)
    except ModelError as error:
        raise Refused(str(error)) from None
    click.echo(visible(str(folder)))


def model_folder(model: HubName) -> Path:
    """Return the folder of a model on the hub, pulling what is missing.

    A model that is here is taken as it is, without asking the hub. Raises `ModelError`.
    """
    return pulled(model) or pull_model(*model)


def pull_model(name: str, revision: str | None) -> Path:
    """Pull a model, telling its licence and how far it is on standard error."""
    model = find(name, revision)
    say(f"{visible(model.name)}, commit {visible(model.commit[:12])}")
    say(_licence(model))
    if not model.missing:
        return fetch(model)
    with _progress(model) as progress:
        return fetch(model, progress)


def _licence(model: RemoteModel) -> str:
    if model.license is None:
        return "licence: none is named in its card; ask its makers before you use it"
    restricted = "rail" in model.license.lower()
    terms = "; it restricts what the model may be used for: read it first" if restricted else ""
    return f"licence: {visible(model.license)}{terms}"


@contextmanager
def _progress(model: RemoteModel) -> Iterator[Callable[[str, int], None]]:
    """Show how far each file is, and the total; without a terminal, only that it began."""
    sizes = {file.name: file.size for file in model.missing}
    total = sum(sizes.values())
    if not sys.stderr.isatty():
        say(f"pulling {len(sizes)} of its files, {megabytes(total)}")
        yield lambda name, done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        whole = bar.add_task("all", total=total)
        tasks = {
            name: bar.add_task(visible(name), total=size, visible=False)
            for name, size in sizes.items()
        }
        done_of = dict.fromkeys(sizes, 0)

        def tell(name: str, done: int) -> None:
            done_of[name] = done
            bar.update(tasks[name], completed=done, visible=True)
            bar.update(whole, completed=sum(done_of.values()))

        yield tell
