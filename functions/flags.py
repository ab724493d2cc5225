"""Each setting as a flag of the command line, which takes precedence over its variable."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import click

from common.settings import PREFIX, Secret
from functions.settings import Settings

F = TypeVar("F", bound=Callable[..., object])
_KEY = "pibloom.settings"


def setting_flags(command: F) -> F:
    """Give a command a flag for each setting; `chosen` returns those that were used."""
    for item in reversed(fields(Settings)):
        variable = PREFIX + item.name.upper()
        if item.type is Secret:
            flag = "--" + item.name.replace("_", "-")
            command = refuse_secret(flag, variable, f"{flag}-file")(command)
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


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty value; a click callback."""
    if value == "":
        raise click.BadParameter("it is given, but empty.", context, parameter)
    return value


def host(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what cannot be a host's name or address; a click callback."""
    try:
        value.encode("idna")
    except UnicodeError:
        raise click.BadParameter(f"{value!r} is not a host.", context, parameter) from None
    not_empty(context, parameter, value)
    return value


def refuse_secret(flag: str, variable: str, file_flag: str) -> Callable[[F], F]:
    """Give a command a hidden flag that says why a secret has no flag, and where it belongs."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                f"{flag} would show the key to everyone on this machine who lists processes;"
                f" set {variable} instead, or name a file by {file_flag}",
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
    if not_empty(context, parameter, value) is not None:
        assert parameter.name is not None
        context.meta.setdefault(_KEY, {})[parameter.name.upper()] = value
