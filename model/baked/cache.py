"""The cache of baked copies: a checkpoint folder is baked once, before it is first served.

A copy's name holds a digest of everything that its bytes depend on: the contents of the folder's
files, the model's name and revision, the bits, and the code that bakes. Digests of files are
remembered beside the copies, so that a start does not read gigabytes to find out that nothing
changed.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.baked.format import SUFFIX, VERSION
from model.baked.partial import PARTIAL, remove_abandoned
from model.baked.progress import BakeProgress, no_progress
from model.baked.source import model_card
from model.checkpoint.folder import Checkpoint, check_folder
from model.checkpoint.weight_files import weight_files
from model.errors import ModelError
from model.files import LARGEST
from model.native import LIBRARY
from model.version import version

_COPY = re.compile(r".+-[0-9a-f]{12,20}-w\d+" + re.escape(SUFFIX))
_RECORD = ".files.json"  # what is remembered of one checkpoint folder
_DESCRIPTIONS = {".json", ".jinja", ".txt", ".model", ".md"}  # small, and read whole
_TEMPLATES = "additional_chat_templates"
_OUTPUTS = {SUFFIX, PARTIAL}  # of a bake into the checkpoint's own folder
# A file that changed less than this ago may change again without another time stamp.
_SETTLED_NS = 2_000_000_000

Digests = dict[str, tuple[list[int], str]]  # by name: a file's status, and its content's digest


def baked_copy(folder: Path, bits: int = 8, progress: BakeProgress = no_progress) -> Path:
    """Return a checkpoint folder's baked copy; it is baked first when it is new or has changed.

    Copies of what the folder held before are deleted, and so is what killed bakes left behind.
    """
    check_folder(folder)
    place = cache_folder()
    record = place / f"{_digest(os.fsencode(folder.resolve()))}{_RECORD}"
    known = _read_record(record)
    # The folder is checked before its files are read. A pickle that is known is not opened, since
    # listing its tensors takes seconds.
    pickled = any(path.suffix != ".safetensors" for path in weight_files(folder))
    checkpoint = None if known and pickled else Checkpoint.open(folder)
    digests = _digests(folder, known)
    copy = place / _copy_name(folder, bits, digests)
    if not _usable(copy):
        checkpoint = checkpoint or Checkpoint.open(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_cache(folder, error) from None
        _remember(record, folder, bits, copy, digests)
        _bake(checkpoint, copy, bits, progress)
        if _digests(folder, digests) != digests:
            copy.unlink(missing_ok=True)
            raise ModelError(f"{folder} was changed while it was baked; start again")
    _remember(record, folder, bits, copy, digests)
    return copy


@dataclass(frozen=True)
class BakedCopy:
    """A copy that the cache holds."""

    folder: Path  # the checkpoint's
    path: Path
    bits: int
    size: int  # bytes
    used: float  # when it was last served or baked, in seconds since the epoch


def copies() -> list[BakedCopy]:
    """Return every copy in the cache."""
    found = []
    place = cache_folder()
    for record in sorted(place.glob(f"*{_RECORD}")):
        data = _load(record)
        named = data.get("copies")
        for bits, name in named.items() if isinstance(named, dict) else ():
            path = place / str(name)
            with suppress(OSError, ValueError):
                size, used = path.stat().st_size, record.stat().st_mtime
                found.append(BakedCopy(Path(str(data.get("folder"))), path, int(bits), size, used))
    return found


def forget(folder: Path) -> None:
    """Delete the copies of a checkpoint folder, which may be gone already."""
    place = cache_folder()
    for record in place.glob(f"*{_RECORD}"):
        if _load(record).get("folder") == str(folder):
            record.unlink(missing_ok=True)
    with suppress(FileNotFoundError), _lock(place):
        _collect(place)


def _bake(checkpoint: Checkpoint, copy: Path, bits: int, progress: BakeProgress) -> None:
    try:
        bake(checkpoint, copy, bits=bits, progress=progress)
    except ModelError as error:
        if isinstance(error.__cause__, OSError):
            raise _no_cache(checkpoint.folder, error.__cause__) from None
        raise


def _no_cache(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{folder} has to be baked before it is served, but {cache_folder()} cannot be written"
        f" ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can, or bake it by"
        f" hand: pibloom bake {folder} -o model.bloom"
    )


def _usable(copy: Path) -> bool:
    """Whether a copy exists and its header is valid; a bake replaces one that is not."""
    try:
        BakedModel(copy)
    except ModelError:
        return False
    return True


def cache_folder() -> Path:
    """Return the folder for baked copies: all of it can be deleted at any time."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # "should be considered invalid", says the XDG specification
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            raise ModelError(
                "there is no home folder to keep baked models in; set XDG_CACHE_HOME"
            ) from None
    return base / "pibloom"


def _copy_name(folder: Path, bits: int, digests: Digests) -> str:
    card = model_card(folder)
    table = [_baker(), version(), str(bits), card.name, card.revision or ""]
    table += [f"{name} {digest}" for name, (_, digest) in digests.items()]
    key = _digest("\n".join(table).encode(errors="surrogateescape"))
    short = re.sub(r"[^\w.-]", "_", card.name, flags=re.ASCII)[:80]
    return f"{short}-{key}-w{bits}{SUFFIX}"


@cache
def _baker() -> str:
    """Digest the code that bakes, since a newer piBLOOM may write other bytes."""
    native = LIBRARY.parent
    compiled = [
        path
        for name in ("bloom.h", "layout.h", "pack.c", "gptq.c")
        if (path := native / name).exists()
    ]
    digest = hashlib.blake2b(str(VERSION).encode(), digest_size=10)
    package = native.parent
    modules = [*package.glob("*.py")]
    for folder in ("text", "checkpoint", "baked"):
        modules += (package / folder).glob("*.py")
    for path in (*sorted(modules), *(compiled or [LIBRARY])):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digests(folder: Path, known: Digests) -> Digests:
    """Digest the files that a bake reads; of other files only the names matter."""
    weights = set(weight_files(folder))
    found: Digests = {}
    for path in sorted([*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]):
        if path.suffix in _OUTPUTS:
            continue
        name = str(path.relative_to(folder))
        described = path.suffix in _DESCRIPTIONS and path.is_file()
        read = path in weights or (described and path.stat().st_size <= LARGEST)
        found[name] = _digest_of(path, known.get(name)) if read else ([], "")
    return found


def _digest_of(path: Path, before: tuple[list[int], str] | None) -> tuple[list[int], str]:
    try:
        with path.open("rb") as file:
            status = _status(file.fileno())
            if before is not None and before[0] == status:
                return before
            return status, hashlib.file_digest(file, _hash).hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


def _status(file: int) -> list[int]:
    status = os.fstat(file)
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [status.st_size, *times, status.st_ino, status.st_dev]


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=20)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read_record(record: Path) -> Digests:
    """Return a folder's digests from its record; none when it cannot be read."""
    files = _load(record).get("files")
    known: Digests = {}
    for name, entry in files.items() if isinstance(files, dict) else ():
        match entry:
            case [list(status), str(digest)]:
                known[name] = (status, digest)
    return known


def _load(record: Path) -> dict[str, Any]:
    try:
        data = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _remember(record: Path, folder: Path, bits: int, copy: Path, digests: Digests) -> None:
    """Write a folder's digests and its copy down, and delete the copies that no folder has."""
    now = time.time_ns()
    settled = {
        name: entry
        for name, entry in digests.items()
        if entry[0] and now - max(entry[0][1:3]) > _SETTLED_NS
    }
    with suppress(OSError), _lock(record.parent):
        before = _load(record)
        copies = before.get("copies")
        copies = copies if isinstance(copies, dict) else {}
        data = {
            "folder": str(folder.resolve()),
            "files": {name: list(entry) for name, entry in settled.items()},
            "copies": copies | {str(bits): copy.name},
        }
        if data != before:
            partial = record.with_name(f"{record.name}.{secrets.token_hex(4)}{PARTIAL}")
            partial.write_text(json.dumps(data), encoding="ascii")
            partial.replace(record)
        os.utime(record)  # when it was last used
        _collect(record.parent)


def _collect(place: Path) -> None:
    """Delete the copies that no record names, and the files that no living process writes."""
    named = set()
    for record in place.glob(f"*{_RECORD}"):
        copies = _load(record).get("copies")
        named |= set(copies.values()) if isinstance(copies, dict) else set()
    for path in place.iterdir():
        if _COPY.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)
    remove_abandoned(place.glob(f"*{PARTIAL}"))


@contextmanager
def _lock(place: Path) -> Iterator[None]:
    """Be the only process that writes records in a cache, where its file system can lock."""
    with (place / ".lock").open("ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
