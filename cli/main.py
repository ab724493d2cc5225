"""The command `pibloom`: its subcommands, and how their errors become sentences and exit codes."""

import contextlib
import importlib
import io
import os
import sys

import click

from common import stdio

FAILURE, REFUSED, INTERRUPTED = 1, 3, 130
COMMANDS = {
    "up": "Serve the chat and both functions on this machine.",
    "generate": "Write text in the terminal.",
    "tokenize": "Show the tokens of a text.",
    "pull": "Fetch a model by its name.",
    "models": "List the models on this machine, or delete one.",
    "bake": "Make a checkpoint into the file that is served.",
    "eval": "Measure how good a model is on a text, and how fast.",
    "inspect": "Show what a checkpoint or a baked model holds.",
}


class Failure(click.ClickException):
    """The command failed; the message is one sentence."""

    exit_code = FAILURE


class Refused(Failure):
    """A model that cannot be used."""

    exit_code = REFUSED


class Commands(click.Group):
    """Loads a command's module only when it is used, so that `--help` costs nothing."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Name the commands in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import one command, or None when there is no such."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"cli.{name}"), name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pibloom", prog_name="pibloom")
def pibloom() -> None:
    """BLOOM on small machines: chat with it, call it, look into it.

    \b
    Start here:
      pibloom up                          the chat, on http://127.0.0.1:8080
      pibloom generate "Once upon a time" text, in the terminal
      pibloom COMMAND --help              examples of each command

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the model is refused,
    130 interrupted.
    """


def main() -> None:
    """Run the command line; the only way out is an exit code."""
    _prepare_streams()
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _failed(error)
    if code == FAILURE:
        _drop_output()
    sys.exit(code)


def _run() -> int:
    try:
        os.getcwd()
    except OSError:
        return _say("the current folder is not there any more; go to another", FAILURE)
    try:
        # click returns the code of --help and of other early ends, a command nothing
        return pibloom(standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            _report(error)
        return error.exit_code
    except MemoryError:
        return _say("there is not enough memory", FAILURE)
    except OSError as error:
        return _failed(error)
    except SystemExit:  # click's way when the reader of the output has closed it
        _drop_output()
        return 0


def _report(error: click.ClickException) -> None:
    from cli.text import visible

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)  # the help, and nothing of anyone's
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"Try '{error.ctx.command_path} --help' for help."
        click.echo(f"{error.ctx.get_usage()}\n{hint}\n", err=True)
    who = "Error" if isinstance(error, click.UsageError) else "pibloom"
    click.echo(f"{who}: {visible(error.format_message())}", err=True)


def _failed(error: OSError) -> int:
    """Report an error of the operating system."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        from cli.text import visible

        return _say(f"{visible(os.fsdecode(error.filename))}: {reason}", FAILURE)
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return 0
    return _say(f"standard output cannot be written: {reason}", FAILURE)


def _say(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"pibloom: {sentence}", err=True)
    return code


def _prepare_streams() -> None:
    """Make every standard stream usable, whatever its encoding."""
    stdio.open_missing()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path may not be UTF-8, and an encoding may lack a character.
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Discard what is not yet written, so that Python reports nothing when it ends."""
    from cli.text import drop

    drop(sys.stdout)
    drop(sys.stderr)


if __name__ == "__main__":
    main()
