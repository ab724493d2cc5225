"""The models that are in the hub's cache, which other programs share."""

from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.hub.client import hub_library
from model.checkpoint.weight_files import weight_files
from model.errors import ModelError
from model.files import read_object
from model.hub_cache import HubName, hub_cache, snapshot


@dataclass(frozen=True)
class PulledModel:
    """A revision of a BLOOM in the hub's cache, which other programs share."""

    name: str
    commit: str
    revisions: tuple[str, ...]  # the branches and tags that it was pulled as
    folder: Path
    size: int  # bytes of its files, which another revision may share


def pulled(model: HubName) -> Path | None:
    """Return the folder of a model that was pulled whole, without asking the hub; else None."""
    folder = snapshot(model)
    try:
        whole = (folder / "tokenizer.json").exists() and (folder / "config.json").exists()
        return folder if whole and weight_files(folder) else None
    except ModelError:
        return None


def all_pulled() -> list[PulledModel]:
    """Return every BLOOM in the hub's cache, by name; those that were pulled by half, too."""
    found = []
    for storage in sorted(hub_cache().glob("models--*--*")):
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
    strategy = hub_library().scan_cache_dir(hub_cache()).delete_revisions(model.commit)
    strategy.execute()


def _is_bloom(folder: Path) -> bool:
    try:
        return bool(read_object(folder / "config.json").get("model_type") == "bloom")
    except (ModelError, OSError):
        return False
