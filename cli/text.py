"""Options and input that several commands share."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from model.loader import default_model

Function = Callable[..., Any]


def model_option(function: Function) -> Function:
    """Add `--model`, which the environment may set too."""
    return click.option(
        "--model",
        type=click.Path(path_type=Path),
        envvar="PIBLOOM_MODEL",
        default=default_model,
        help="model.bloom or a checkpoint folder; PIBLOOM_MODEL, or the demo model.",
    )(function)


def read_text(argument: str | None) -> str:
    """Return the argument, or standard input when there is none or it is `-`."""
    if argument is not None and argument != "-":
        return argument
    if sys.stdin.isatty():
        raise click.UsageError("give a text, or send one to standard input")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError("standard input is no UTF-8 text") from None
