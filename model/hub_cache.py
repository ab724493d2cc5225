"""Models by their names on the hub, and where its cache keeps those that were pulled.

Nothing here asks the hub or imports its library, so that services may use it;
`model/checkpoint/hub/` does both.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# As the hub allows: ORGANISATION/MODEL, and a branch, a tag or a commit.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]*", re.ASCII)


class HubName(NamedTuple):
    """A model on the hub, and which of its revisions; None: its main branch."""

    name: str
    revision: str | None


def is_name(text: str) -> bool:
    """Whether a text could be a model's name on the hub: ORGANISATION/MODEL."""
    return bool(_NAME.fullmatch(text)) and ".." not in text and "--" not in text


def is_revision(text: str) -> bool:
    """Whether a text could be a branch, a tag or a commit; it cannot lead out of a folder."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def hub_name(text: str) -> HubName | None:
    """Read ORGANISATION/MODEL or ORGANISATION/MODEL@REVISION; None for any other text."""
    name, at, revision = text.partition("@")
    if not is_name(name) or (at and not is_revision(revision)):
        return None
    return HubName(name, revision or None)


def hub_cache() -> Path:
    """Return the hub's cache, as `huggingface_hub` finds it, without importing it."""
    base = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(base, "huggingface"))
    cache = os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))
    return Path(os.path.expandvars(cache)).expanduser()


def snapshot(model: HubName) -> Path:
    """Return the folder that a revision has in the cache, whether or not anything is there."""
    storage = hub_cache() / f"models--{model.name.replace('/', '--')}"
    commit = model.revision or "main"
    with suppress(OSError, ValueError):  # without such a note it may be a commit itself
        noted = (storage / "refs" / commit).read_text(encoding="ascii").strip()
        commit = noted if is_revision(noted) else commit
    return storage / "snapshots" / commit
