"""Models by name: fetched from the hub into its own cache, checked by their hashes, found again.

The protocol, the cache's layout, tokens, mirrors and offline use are those of `huggingface_hub`
(the extra `hub`; serving does not import it): HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE. What
it lacks is done here: only the files that are read are fetched, the part of a file that an
interrupted download left is continued by the next one, and each file's hash is compared.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from model.checkpoint.card import license_of
from model.checkpoint.weight_files import weight_files
from model.config import BloomConfig
from model.errors import ModelError
from model.files import read_object

if TYPE_CHECKING:
    from huggingface_hub import RepoSibling

Progress = Callable[[str, int], None]  # a file's name, and how many of its bytes are here

_NAME = re.compile(
    r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
)  # as the hub allows: ORGANISATION/MODEL
# The small files that a bake reads, and what a person should read.
_DESCRIPTIONS = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
}
_TEMPLATES = "additional_chat_templates"
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


def is_name(text: str) -> bool:
    """Whether a text could be a model's name on the hub: ORGANISATION/MODEL."""
    return bool(_NAME.fullmatch(text)) and ".." not in text and "--" not in text


def pulled(name: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model that was pulled whole, without asking the hub; else None."""
    storage = _cache() / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    with suppress(OSError, ValueError):  # without such a note it may be a commit itself
        commit = (storage / "refs" / commit).read_text(encoding="ascii").strip()
    folder = storage / "snapshots" / commit
    try:
        whole = (folder / "tokenizer.json").exists() and (folder / "config.json").exists()
        return folder if whole and weight_files(folder) else None
    except ModelError:
        return None


def find(name: str, revision: str | None = None) -> RemoteModel:
    """Look a model up and fetch its small files, so that gigabytes of the wrong kind are refused.

    `ModelError` when there is no such model or revision, when it is gated, of another architecture
    or lacks a file, and when the hub cannot be reached or asks to wait.
    """
    if not is_name(name):
        raise ModelError(f"{name!r} is no name of a model; names are like bigscience/bloomz-560m")
    hub = _hub()
    with _sentences(name, revision):
        found = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        siblings = {each.rfilename: each for each in found.siblings or ()}
        commit = str(found.sha)
        _refuse_others(name, siblings)
        # This also notes in the cache which commit the revision is.
        config = Path(hub.hf_hub_download(name, "config.json", revision=revision))
    folder = config.parent
    if folder.name != commit:
        raise ModelError(f"{name} was changed on the hub while it was looked up; try again")
    BloomConfig.open(config)
    small = [each for each in siblings if each in _DESCRIPTIONS or _is_template(each)]
    weights, index = _weights(name, siblings)
    small += [index] if index else []
    described = [_file(siblings[each]) for each in sorted(small)]
    model = RemoteModel(name, commit, folder, None, tuple(described))
    _fetch(model, lambda file, done: None)
    if index:
        weights = _shards(name, folder / index, siblings)
    files = [*described, *(_file(siblings[each]) for each in weights)]
    return RemoteModel(name, commit, folder, license_of(folder), tuple(files))


def fetch(model: RemoteModel, progress: Progress = lambda name, done: None) -> Path:
    """Fetch what is missing of a model, and return its folder.

    What an interrupted download left is continued. `ModelError` when the disk has no room for it
    (nothing is fetched then), when a file arrives damaged, or the hub cannot be reached.
    """
    wanted = sum(file.size - _partial_size(model, file) for file in model.missing)
    free = shutil.disk_usage(model.folder).free
    if model.missing and wanted + _SPARE > free:
        raise ModelError(
            f"{model.name} takes {wanted / 1e9:.1f} GB more, but {_cache()} has {free / 1e9:.1f} GB"
            " free; make room, or set HF_HOME to a folder on another disk"
        )
    _fetch(model, progress)
    return model.folder


def _fetch(model: RemoteModel, progress: Progress) -> None:
    for file in model.missing:
        with _sentences(model.name, model.commit):
            _fetch_file(model, file, progress)


def _fetch_file(model: RemoteModel, file: RemoteFile, progress: Progress) -> None:
    hub = _hub()
    blob = _blob(model, file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        with _locked(blob.with_name(blob.name + _INCOMPLETE)) as (partial, stream):
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


def _download(model: RemoteModel, file: RemoteFile, stream: BinaryIO, progress: Progress) -> None:
    """Fetch a file behind what is there of it; a line that breaks is taken up where it broke."""
    url = _hub().hf_hub_url(model.name, file.name, revision=model.commit)
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
            if not tries or not _is_network(error):
                raise
            done = stream.seek(0, os.SEEK_END)
            time.sleep(_PAUSE)
    stream.flush()
    os.fsync(stream.fileno())


def _received(url: str, file: RemoteFile, stream: BinaryIO) -> Iterator[int]:
    """Receive what is missing of a file, and yield how much of it is there by now."""
    http = _hub().utils
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
            done += stream.write(block)
            yield done


def _is_network(error: Exception) -> bool:
    """Whether an error comes from the HTTP client: a line that broke, or was never there."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


@contextmanager
def _locked(partial: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file that is being fetched, for one process at a time."""
    with partial.open("ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield partial, stream


def _hash(path: Path, file: RemoteFile) -> str:
    """Hash a file as the hub names its content: SHA-256 of a large one, else as a blob of git."""
    digest = hashlib.sha256() if file.large else hashlib.sha1(usedforsecurity=False)
    if not file.large:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _refuse_others(name: str, siblings: dict[str, "RepoSibling"]) -> None:
    """Say what a repository is that holds no whole model."""
    if "config.json" not in siblings:
        if "adapter_config.json" in siblings:
            raise ModelError(f"{name} is an adapter (LoRA), and no whole model")
        raise ModelError(f"{name} has no config.json, so it is no model of transformers' kind")
    if "tokenizer.json" not in siblings:
        raise ModelError(f"{name} has no tokenizer.json, which piBLOOM needs")


def _weights(name: str, siblings: dict[str, "RepoSibling"]) -> tuple[list[str], str | None]:
    """Return the weights that transformers would read: files, or the index that names them."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if whole in siblings:
            return [whole], None
        if f"{whole}.index.json" in siblings:
            return [], f"{whole}.index.json"
    raise ModelError(f"{name} has neither model.safetensors nor pytorch_model.bin, nor their index")


def _shards(name: str, index: Path, siblings: dict[str, "RepoSibling"]) -> list[str]:
    table = read_object(index, 256 << 20).get("weight_map")
    shards = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    for shard in shards:
        if shard not in siblings:
            raise ModelError(f"{name} lacks {shard!r}, although its {index.name} names it")
    if not shards:
        raise ModelError(f"{name}: its {index.name} names no weights")
    return shards


def _is_template(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent == PurePosixPath(_TEMPLATES) and path.suffix == ".jinja"


def _file(sibling: "RepoSibling") -> RemoteFile:
    if sibling.lfs:
        return RemoteFile(sibling.rfilename, sibling.lfs.size, sibling.lfs.sha256, large=True)
    return RemoteFile(sibling.rfilename, sibling.size or 0, str(sibling.blob_id), large=False)


def _blob(model: RemoteModel, file: RemoteFile) -> Path:
    """Return where the hub's cache keeps a file's content."""
    return model.folder.parent.parent / "blobs" / file.etag


def _partial_size(model: RemoteModel, file: RemoteFile) -> int:
    blob = _blob(model, file)
    for path in (blob, blob.with_name(blob.name + _INCOMPLETE)):
        if path.exists():
            return min(path.stat().st_size, file.size)
    return 0


def _cache() -> Path:
    """Return the hub's cache, as `huggingface_hub` finds it, without importing it."""
    base = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(base, "huggingface"))
    cache = os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))
    return Path(os.path.expandvars(cache)).expanduser()


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModelError(
            f"a model is pulled by {error.name}; install piBLOOM with its extra 'hub'"
            " (pip install -e '.[hub]')"
        ) from None
    return huggingface_hub


@contextmanager
def _sentences(name: str, revision: str | None) -> Iterator[None]:
    """Turn the errors of the hub and of the network into a `ModelError` of one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(
            f"{name} is gated: accept its terms on its page of the hub, then set HF_TOKEN to a"
            " token of the account that did"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name} has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"there is no model {name} on the hub, or it is private, and HF_TOKEN is not a token"
            " that may read it"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true"):
            raise ModelError(f"{name} is not here, and HF_HUB_OFFLINE is set") from None
        raise ModelError(
            f"{name} is not here, and the hub cannot be reached: {_cause(error)}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        asked = "it asks to wait a while" if status == 429 else "try again later"
        raise ModelError(f"{name} was not pulled: the hub answered {status}; {asked}") from None
    except OSError as error:
        raise ModelError(f"{name} was not pulled: {error.strerror or _cause(error)}") from None
    except Exception as error:
        if not _is_network(error):
            raise
        raise ModelError(
            f"{name} was not pulled: the hub cannot be reached ({_cause(error)})"
        ) from None


def _cause(error: BaseException) -> str:
    """Return the first sentence of the innermost error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@dataclass(frozen=True)
class PulledModel:
    """A revision of a BLOOM in the hub's cache, which other programs share."""

    name: str
    commit: str
    revisions: tuple[str, ...]  # the branches and tags that it was pulled as
    folder: Path
    size: int  # bytes of its files, which another revision may share


def all_pulled() -> list[PulledModel]:
    """Return every BLOOM in the hub's cache, by name; those that were pulled by half, too."""
    found = []
    for storage in sorted(_cache().glob("models--*--*")):
        name = storage.name.removeprefix("models--").replace("--", "/")
        refs = {
            str(path.relative_to(storage / "refs")): path.read_text("utf-8", "replace").strip()
            for path in sorted((storage / "refs").rglob("*"))
            if path.is_file()
        }
        for folder in sorted((storage / "snapshots").glob("*")):
            if not _is_bloom(folder):
                continue
            revisions = tuple(ref for ref, commit in refs.items() if commit == folder.name)
            blobs = {path.resolve() for path in folder.rglob("*") if path.is_file()}
            size = sum(path.stat().st_size for path in blobs)
            found.append(PulledModel(name, folder.name, revisions, folder, size))
    return found


def remove(model: PulledModel) -> None:
    """Delete a revision from the hub's cache, with the files that no other revision has."""
    hub = _hub()
    strategy = hub.scan_cache_dir(_cache()).delete_revisions(model.commit)
    strategy.execute()


def _is_bloom(folder: Path) -> bool:
    try:
        return bool(read_object(folder / "config.json").get("model_type") == "bloom")
    except (ModelError, OSError):
        return False
