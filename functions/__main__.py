"""Serve one function: `python -m functions generate --port 8081`."""

import os
import sys

import click

from functions import flags
from functions.server import FUNCTIONS, serve
from functions.settings import SettingError


@click.command()
@click.argument("name", type=click.Choice(FUNCTIONS))
@click.option(
    "--host",
    default=lambda: os.environ.get("HOST", "127.0.0.1"),
    help="Address to listen on; HOST, or 127.0.0.1.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=lambda: os.environ.get("PORT", "8080"),
    help="Port to listen on; PORT, or 8080.",
)
@click.option("--reload", is_flag=True, help="Start anew when a source file changes.")
@flags.setting_flags
def main(name: str, host: str, port: int, *, reload: bool) -> None:
    """Serve one of piBLOOM's functions over HTTP."""
    os.environ.update(flags.chosen())
    try:
        serve(name, host, port, reload=reload)
    except SettingError as error:
        click.echo(f"piBLOOM: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
