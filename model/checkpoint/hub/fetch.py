"""Fetching a model's files into the hub's cache.

`huggingface_hub` fetches a file whole or not at all; here a part that an interrupted download left
is continued by the next one, and each file's hash is compared.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.checkpoint.hub.client import hub_errors, hub_library, is_network
from model.errors import ModelError
from model.hub_cache import hub_cache

FetchProgress = Callable[[str, int], None]  # a file's name, and how many of its bytes are here

_SPARE = 64 << 20  # bytes of disk beyond the files themselves
_INCOMPLETE = ".pibloom.incomplete"
_TRIES, _PAUSE = 5, 1.0  # without a byte more in between; seconds between them
_SECONDS = 20.0  # of silence, after which a line is taken for broken


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model on the hub."""

    name: str
    size: int  # bytes
    etag: str  # what the cache calls its content: the SHA-256 of a large file, git's hash of others
    large: bool  # kept by the hub outside of git


@dataclass(frozen=True)
class RemoteModel:
    """A model on the hub that piBLOOM can serve, as far as its small files tell."""

    name: str
    commit: str
    folder: Path  # where its files are linked in the hub's cache
    license: str | None
    files: tuple[RemoteFile, ...]  # all that are needed

    @property
    def missing(self) -> tuple[RemoteFile, ...]:
        """The files that are not here yet."""
        return tuple(file for file in self.files if not (self.folder / file.name).exists())


def fetch(model: RemoteModel, progress: FetchProgress = lambda name, done: None) -> Path:
    """Fetch what is missing of a model, and return its folder.

    What an interrupted download left is continued; what is left of other revisions is deleted, once
    this one is whole. `ModelError` when the disk has no room for it
    (nothing is fetched then), when a file arrives damaged, or the hub cannot be reached.
    """
    wanted = sum(file.size - _partial_size(model, file) for file in model.missing)
    free = shutil.disk_usage(model.folder).free
    if model.missing and wanted + _SPARE > free:
        raise ModelError(
            f"{model.name} takes {wanted / 1e6:,.0f} MB more and {_SPARE / 1e6:.0f} MB to spare,"
            f" but {hub_cache()} has {free / 1e6:,.0f} MB free; make room, or set HF_HOME to a"
            " folder on another disk"
        )
    fetch_missing(model, progress)
    _collect(model)
    return model.folder


def fetch_missing(model: RemoteModel, progress: FetchProgress) -> None:
    """Fetch what is missing of a model, file by file."""
    for file in model.missing:
        with hub_errors(model.name, model.commit):
            _fetch_file(model, file, progress)


def _fetch_file(model: RemoteModel, file: RemoteFile, progress: FetchProgress) -> None:
    hub = hub_library()
    blob = _blob(model, file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        partial = blob.with_name(blob.name + _INCOMPLETE)
        with _locked(partial, blob) as stream:
            if not blob.exists():  # another process may have been quicker
                _download(model, file, stream, progress)
                if _hash(partial, file) != file.etag:
                    partial.unlink()
                    raise ModelError(
                        f"{file.name} of {model.name} arrived damaged: its hash is not the one that"
                        " the hub tells; pull it again"
                    )
                partial.replace(blob)
    # The content is there, so this only links it.
    hub.hf_hub_download(model.name, file.name, revision=model.commit)


def _download(
    model: RemoteModel, file: RemoteFile, stream: BinaryIO, progress: FetchProgress
) -> None:
    """Fetch a file behind what is there of it; a line that breaks is taken up where it broke."""
    url = hub_library().hf_hub_url(model.name, file.name, revision=model.commit)
    done = stream.seek(0, os.SEEK_END)
    tries = _TRIES
    while True:
        progress(file.name, done)
        try:
            for done in _received(url, file, stream):
                progress(file.name, done)
                tries = _TRIES
            break
        except Exception as error:
            tries -= 1
            if not tries or not is_network(error):
                raise
            done = stream.seek(0, os.SEEK_END)
            time.sleep(_PAUSE)
    stream.flush()
    os.fsync(stream.fileno())


def _received(url: str, file: RemoteFile, stream: BinaryIO) -> Iterator[int]:
    """Receive what is missing of a file, and yield how much of it is there by now."""
    http = hub_library().utils
    done = stream.tell()
    if done == file.size:
        return
    headers = http.build_hf_headers() | {"Accept-Encoding": "identity"}
    if 0 < done < file.size:
        headers["Range"] = f"bytes={done}-"
    with http.get_session().stream(
        "GET", url, headers=headers, timeout=_SECONDS, follow_redirects=True
    ) as response:
        http.hf_raise_for_status(response)
        if response.status_code != 206:  # the whole file comes
            stream.truncate(0)
            done = stream.seek(0)
        for block in response.iter_bytes():
            done += len(block)
            if done > file.size:
                raise ModelError(f"{file.name} is longer than the {file.size:,} bytes of the hub")
            stream.write(block)
            yield done


@contextmanager
def _locked(partial: Path, blob: Path) -> Iterator[BinaryIO]:
    """Open a file that is being fetched, for one process at a time."""
    while True:
        with partial.open("ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # While this waited, another process may have completed the file, or deleted it.
            if _is_at(stream, partial) or blob.exists():
                yield stream
                return


def _is_at(stream: BinaryIO, path: Path) -> bool:
    """Whether a path still names the file that is open."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


def _collect(model: RemoteModel) -> None:
    """Delete the parts of files that no process fetches any more."""
    for partial in (model.folder.parent.parent / "blobs").glob(f"*{_INCOMPLETE}"):
        with suppress(OSError), partial.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _hash(path: Path, file: RemoteFile) -> str:
    """Hash a file as the hub names its content: SHA-256 of a large one, else as a blob of git."""
    digest = hashlib.sha256() if file.large else hashlib.sha1(usedforsecurity=False)
    if not file.large:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _blob(model: RemoteModel, file: RemoteFile) -> Path:
    """Return where the hub's cache keeps a file's content."""
    return model.folder.parent.parent / "blobs" / file.etag


def _partial_size(model: RemoteModel, file: RemoteFile) -> int:
    blob = _blob(model, file)
    for path in (blob, blob.with_name(blob.name + _INCOMPLETE)):
        if path.exists():
            return min(path.stat().st_size, file.size)
    return 0
