"""How the commands take a model: a baked file, a checkpoint folder, or a name on the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.main import Refused
from cli.text import Readable
from model.errors import ModelError
from model.names import default_model

Function = Callable[..., Any]


class ModelPath(Readable):
    """A path, or a name such as bigscience/bloomz-560m, which is pulled when it is not here."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Path:
        """Return the path of a file or folder; a path that is there comes before a name."""
        path = super().convert(value, parameter, context)
        return path if isinstance(value, Path) else path_of(str(value), path)


def path_of(text: str, path: Path | None = None) -> Path:
    """Return where a model is: the path that the text is, or the folder of a pulled model.

    Raises `Refused` when the text is neither.
    """
    path = path or Path(text)
    if path.exists():
        return path
    from model.hub_cache import hub_name

    if (model := hub_name(text)) is None:
        return path  # opening it will say what is wrong with it
    from cli.pull import model_folder

    try:
        return model_folder(model)
    except ModelError as error:
        raise Refused(
            f"{text} is not a path here, so it was taken for a name on the hub; {error}"
        ) from None


def model_option(function: Function) -> Function:
    """Add `--model`, which the environment may set too."""
    return click.option(
        "--model",
        type=ModelPath(),
        envvar="PIBLOOM_MODEL",
        default=default_model,
        help="model.bloom, a checkpoint folder, or a name on the hub; PIBLOOM_MODEL, or the demo"
        " model.",
    )(function)
