"""Where a model is served from: a baked file, or a checkpoint folder's baked copy in the cache."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from model.baked import SUFFIX, VERSION, BakedModel
from model.errors import ModelError

Progress = Callable[[str, int, int], None]  # tensor, bytes done, bytes in all


def is_baked(path: Path) -> bool:
    """Whether a path names a baked model, by its suffix; a folder is a checkpoint."""
    return path.suffix == SUFFIX and not path.is_dir()


def baked_copy(
    folder: Path, bits: int = 8, progress: Progress = lambda name, done, total: None
) -> Path:
    """Return a checkpoint folder's copy in the cache, baking it first when it is new or changed."""
    from model.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(folder)
    copy = (
        cache_folder() / f"{folder.resolve().name}-{_fingerprint(checkpoint.files)}-w{bits}{SUFFIX}"
    )
    if not _usable(copy):
        from model.bake import bake

        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"{folder} has to be baked before it is served, but {copy.parent} cannot be made"
                f" ({error.strerror}); bake it by hand: pibloom bake {folder} -o model.bloom"
            ) from None
        bake(checkpoint, copy, bits=bits, progress=progress)
    return copy


def _usable(copy: Path) -> bool:
    """Whether a copy is there, and whole as far as its header tells: the next bake replaces it."""
    try:
        BakedModel(copy)
    except ModelError:
        return False
    return True


def cache_folder() -> Path:
    """Return the folder for baked copies: all of it can be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pibloom"


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256(str(VERSION).encode())
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from None
        digest.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
