"""The progress of a bake on the screen."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cli.text import say, visible
from model.baked.progress import BakeProgress


@contextmanager
def progress_bar(title: str, *, of_bytes: bool = True) -> Iterator[BakeProgress]:
    """Show the progress of a bake on standard error; without a terminal, only that it began.

    Where progress is not of bytes, what is done next is shown instead of them.
    """
    if not sys.stderr.isatty():
        shown = False

        def tell(name: str, done: int, total: int) -> None:
            nonlocal shown
            if not shown:
                say(visible(title))
            shown = True

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if of_bytes else TextColumn("{task.fields[name]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(title), name="")

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, name=visible(name))

        yield show
