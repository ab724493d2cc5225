"""The working folder beside the output of a calibrated bake.

Only what was made from the same input is used again. It goes when the bake is done, and when the
next bake of the same name does not calibrate.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from model.errors import ModelError

_KEY, _LOCK = "input", "lock"


def folder_for(output: Path) -> Path:
    """Return where the bake of a file keeps what it has calibrated."""
    return output.with_name(f"{output.name}.calibration")


@contextmanager
def working_folder(output: Path, key: Mapping[str, Any]) -> Iterator[Path]:
    """Open the working folder of an output; what another input left there is deleted.

    The folder goes when the block ends well, and stays when it does not. `ModelError` when it
    cannot be written, or another process uses it.
    """
    folder = folder_for(output)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest().encode()
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()) and not (folder / _LOCK).is_file():
            raise ModelError(f"{folder} is not a calibration's folder; move it away")
        with (folder / _LOCK).open("ab") as lock:
            _take(lock, output)
            known = folder / _KEY
            if not known.is_file() or known.read_bytes() != digest:
                for path in folder.iterdir():
                    if path.name != _LOCK:
                        path.unlink()
                write_synced(known, digest)
            yield folder
        shutil.rmtree(folder)
    except OSError as error:
        raise ModelError(
            f"{folder}, where a calibration keeps its work, cannot be written:"
            f" {error.strerror or error}"
        ) from error


def remove_results(output: Path) -> None:
    """Delete what a calibration for this output left, unless one is running."""
    with suppress(OSError, ModelError), (folder_for(output) / _LOCK).open("rb") as lock:
        _take(lock, output)
        shutil.rmtree(folder_for(output))


def _take(lock: IO[bytes], output: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ModelError(f"another process is calibrating {output}") from None
    except OSError:
        pass  # some network file systems know no locks


def write_synced(path: Path, *parts: bytes) -> None:
    """Write a file whole or not at all, and onto the disk."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
