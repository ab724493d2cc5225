"""The command `pibloom`: its commands, and the one place where their errors become sentences."""

import importlib
import sys

import click

FAILURE, REFUSED, INTERRUPTED = 1, 3, 130
COMMANDS = {
    "up": "Serve the chat and both functions on this machine.",
    "generate": "Write text in the terminal.",
    "tokenize": "Show the tokens of a text.",
    "bake": "Make a checkpoint into the file that is served.",
    "inspect": "Show what a checkpoint or a baked model holds.",
}


class Failure(click.ClickException):
    """Something went wrong; the message is one sentence."""

    exit_code = FAILURE

    def show(self, file: object = None) -> None:
        """Print the sentence."""
        click.echo(f"pibloom: {self.message}", err=True)


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
    try:
        pibloom(standalone_mode=False)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone, and wants no more
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
