"""What `pibloom bake --calibrate` reads and says."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.main import Refused
from cli.progress import progress_bar
from cli.text import STDIN, read_text_file, say, visible
from model.errors import ModelError

if TYPE_CHECKING:
    from model.baked.bake import QuantisationError
    from model.calibration.calibrate import Calibration
    from model.checkpoint.adapter import Adapter
    from model.checkpoint.folder import Checkpoint


@contextmanager
def calibration(
    checkpoint: "Checkpoint",
    output: Path,
    bits: int,
    texts: Sequence[Path],
    adapter: "Adapter | None",
) -> "Iterator[Calibration]":
    """Calibrate a checkpoint on texts, or without any on what it writes, and show the progress."""
    try:
        from model.calibration.calibrate import calibrated
        from model.calibration.tokens import OWN, windows_of
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise Refused(
            "--calibrate needs torch; install the extra 'reference' (pip install -e '.[reference]')"
        ) from None
    tokenizer = checkpoint.tokenizer()
    ids = (
        [id_ for text in map(read_text_file, texts) for id_ in tokenizer.ids(text)]
        if texts
        else None
    )
    if ids is not None:
        try:
            windows_of(ids, checkpoint.config.max_context)
        except ModelError as error:
            raise click.UsageError(str(error)) from None
    source = ", ".join("standard input" if path == STDIN else path.name for path in texts) or OWN
    with ExitStack() as stack:
        try:
            with progress_bar(f"calibrating {output.name}", of_bytes=False) as progress:
                done = stack.enter_context(
                    calibrated(
                        checkpoint,
                        output,
                        bits=bits,
                        text=ids,
                        source=source,
                        adapter=adapter,
                        progress=progress,
                    )
                )
        except KeyboardInterrupt:
            say("what is calibrated is kept; the same command goes on from there")
            raise
        yield done


def cost_of_outputs(errors: "Sequence[QuantisationError]") -> str:
    """Say what rounding cost the outputs of the matrices that were calibrated."""
    from model.calibration.calibrate import CalibratedError

    found = [error for error in errors if isinstance(error, CalibratedError)]
    before, after = (
        sorted(getattr(error, field) for error in found)[len(found) // 2]
        for field in ("outputs_before", "outputs")
    )
    worst = max(found, key=lambda error: error.outputs)
    return (
        f"calibrated: the outputs of a matrix are {after:.2%} off (the median of {len(found)}),"
        f" {worst.outputs:.2%} at most ({visible(worst.name)}); without it, {before:.2%}"
    )
