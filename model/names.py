"""The names of engines and checkpoint folders, and the folder that the project ships."""

from pathlib import Path

ENGINES = ("native", "reference")


def folder_name(folder: Path) -> str:
    """Return a folder's name; in the hub's own cache, where it is a hash, the model's.

    `models--org--name/snapshots/HASH` is `name`, also by way of a link.
    """
    if snapshot := _snapshot(folder):
        return snapshot.parent.parent.name.removeprefix("models--").split("--", 1)[-1]
    return folder.resolve().name or "model"


def folder_revision(folder: Path) -> str | None:
    """Return the commit that a folder of the hub's cache is of; None for any other folder."""
    snapshot = _snapshot(folder)
    return snapshot.name if snapshot else None


def _snapshot(folder: Path) -> Path | None:
    for path in (folder.absolute(), folder.resolve()):
        # Below a snapshot's folder there is no other checkpoint, so only the direct parent counts.
        if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
            return path
    return None


def default_model() -> Path:
    """Return the folder of the demo model that the project ships."""
    return Path(__file__).parent / "demo" / "checkpoint"
