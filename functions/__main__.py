"""Serve one function: `python -m functions generate --port 8081`."""

import logging
import os
import sys

import click

from common import environment, stdio
from common.settings import SettingsError
from functions import flags

FUNCTIONS = ("generate", "tokenize")


@click.command()
@click.argument("name", type=click.Choice(FUNCTIONS))
@click.option(
    "--host",
    default=lambda: os.environ.get("HOST") or "127.0.0.1",
    callback=flags.host,
    help="Address to listen on; HOST, or 127.0.0.1.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=lambda: os.environ.get("PORT") or "8080",
    help="Port to listen on; PORT, or 8080.",
)
@click.option("--reload", is_flag=True, help="Restart when a source file changes.")
@flags.setting_flags
def main(name: str, host: str, port: int, *, reload: bool) -> None:
    """Serve one of piBLOOM's functions over HTTP."""
    stdio.open_missing()
    logging.raiseExceptions = False  # a log line that cannot be written causes no traceback
    os.environ.update(flags.chosen())
    environment.remove_others(environment.ENGINE_FAMILIES)
    try:
        os.getcwd()
    except OSError:
        _give_up("the current folder is not there any more; start it from another", 1)
    from functions.server.application import serve  # it imports what reads the environment

    try:
        serve(name, host, port, reload=reload)
    except SettingsError as error:
        _give_up(str(error), 2)


def _give_up(sentence: str, code: int) -> None:
    click.echo(f"piBLOOM: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
