"""Each setting as a flag of the command line, which outdoes its environment variable."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import click

from functions.settings import PREFIX, Settings

F = TypeVar("F", bound=Callable[..., object])
_KEY = "pibloom.settings"


def setting_flags(command: F) -> F:
    """Give a command a flag for each setting; `chosen` tells which were used."""
    for item in reversed(fields(Settings)):
        variable = PREFIX + item.name.upper()
        among = item.metadata.get("among")
        command = click.option(
            "--" + item.name.replace("_", "-"),
            variable,
            type=click.Choice(among) if among else click.Path() if item.type is Path else str,
            metavar=None if among or item.type is Path else _METAVARS.get(str(item.type), "TEXT"),
            help=_sentence(item.metadata["help"]) + f"; or {variable}.",
            expose_value=False,
            callback=_note,
        )(command)
    return command


def chosen() -> dict[str, str]:
    """Return the settings that the running command's flags give, as environment variables."""
    found: dict[str, str] = click.get_current_context().meta.get(_KEY, {})
    return found


_METAVARS = {str(int): "INTEGER", str(float): "NUMBER"}


def _sentence(help_: str) -> str:
    plain = help_.replace("`", "")
    return plain if "." in plain.split()[0] else plain[0].upper() + plain[1:]


def _note(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        assert parameter.name is not None
        context.meta.setdefault(_KEY, {})[parameter.name.upper()] = value
