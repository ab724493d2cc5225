"""Input and output that several commands share."""

import json
import math
import os
import re
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

STDIN = Path("-")  # what stands for standard input where a text is named
# Marks that change the direction of the text after them, so that a name reads as another one.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NARROWEST = 40  # columns of a table
_JSON_CONTROLS = re.compile("[\x7f-\x9f]")  # json.dumps escapes those below a blank only


class Readable(click.Path):
    """A path; a `~` is the home folder also where no shell has expanded it, as in --model=~/x."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Path:
        """Return the path; refuses an empty one, which would be the current folder."""
        if value == "":
            self.fail("it is given, but empty.", parameter, context)
        try:
            return Path(value).expanduser()
        except RuntimeError:
            self.fail(f"the home folder of {str(value)!r} is not known.", parameter, context)


class Number(click.FloatRange):
    """A number in a range; NaN is refused."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Return the number."""
        number: float = super().convert(value, parameter, context)
        if math.isnan(number):
            self.fail(f"{value!r} is not a valid float.", parameter, context)
        return number


def read_text(argument: str | None) -> str:
    """Return the argument, or standard input when there is none or it is `-`."""
    if argument is not None and argument != "-":
        return _argument_text(argument)
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("give a text, or send one to standard input")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not UTF-8 text") from None


def _argument_text(argument: str) -> str:
    """Return an argument decoded as UTF-8, even if the locale is ASCII."""
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:  # it holds bytes that the locale could not decode
        pass
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise click.UsageError("the text is not UTF-8") from None


def table_console() -> "Console":
    """Return a console for tables of texts that stand as they are.

    It is not narrower than 40 columns: a table that is squeezed further shows dots alone.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, _NARROWEST)
    return console


def visible(text: str) -> str:
    """Escape what would move the terminal's cursor, colour its text or change the text's direction.

    Line breaks are escaped too.
    """
    return _escaped(text, keep="\t", turning=True)


def written(text: str) -> str:
    """Return a model's text as it may be written to standard output.

    A terminal is sent no control characters; a file or a program gets the text as it is.
    """
    if not sys.stdout.isatty():
        return text
    return _escaped(text, keep="\n\t", turning=False)


def _escaped(text: str, *, keep: str, turning: bool) -> str:
    if text.isprintable():
        return text

    def shown(each: str) -> str:
        bad = unicodedata.category(each) in ("Cc", "Cs") or (turning and each in _TURNING)
        return f"<U+{ord(each):04X}>" if bad and each not in keep else each

    return "".join(map(shown, text))


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print JSON that is valid whatever the encoding of standard output, for a terminal too."""
    utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent)
    click.echo(_JSON_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(text: str, *, err: bool = True) -> None:
    """Print a line for people; the command goes on if it cannot be written."""
    try:
        click.echo(text, err=err)
    except (OSError, ValueError):  # a full disk, a reader that has left, a closed file
        drop(sys.stderr if err else sys.stdout)


def drop(stream: Any) -> None:
    """Discard what is not yet written to a stream, so that the end of the process cannot fail."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def read_text_file(path: Path) -> str:
    """Read a UTF-8 text that the command line names; `-` is standard input."""
    name = "standard input" if path == STDIN else visible(str(path))
    try:
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} is not UTF-8 text") from None
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror or error}") from None
