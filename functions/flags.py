"""Each setting as a flag of the command line, which outdoes its environment variable."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import click

from functions.settings import PREFIX, Secret, Settings

F = TypeVar("F", bound=Callable[..., object])
_KEY = "pibloom.settings"


def setting_flags(command: F) -> F:
    """Give a command a flag for each setting; `chosen` tells which were used."""
    for item in reversed(fields(Settings)):
        variable = PREFIX + item.name.upper()
        if item.type is Secret:
            command = _refused(item.name, variable)(command)
            continue
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


def given(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a flag with an empty value; a callback of click's."""
    if value == "":
        raise click.BadParameter("it is given, but empty.", context, parameter)
    return value


def _refused(name: str, variable: str) -> Callable[[F], F]:
    """Make a flag that only says why there is none: whoever lists processes would read it."""
    flag = "--" + name.replace("_", "-")

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                f"{flag} would show the keys to everyone on this machine who lists processes;"
                f" set {variable} instead, or name a file by {flag}-file",
                context,
            )

    return click.option(flag, variable, hidden=True, expose_value=False, callback=refuse)


def chosen() -> dict[str, str]:
    """Return the settings that the running command's flags give, as environment variables."""
    found: dict[str, str] = click.get_current_context().meta.get(_KEY, {})
    return found


_METAVARS = {str(int): "INTEGER", str(float): "NUMBER"}


def _sentence(help_: str) -> str:
    plain = help_.replace("`", "")
    return plain if "." in plain.split()[0] else plain[0].upper() + plain[1:]


def _note(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if given(context, parameter, value) is not None:
        assert parameter.name is not None
        context.meta.setdefault(_KEY, {})[parameter.name.upper()] = value
