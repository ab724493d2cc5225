"""The licence of a model: what the README.md of its checkpoint folder names."""

from pathlib import Path

_FRONT_MATTER = 1 << 16  # characters of a model card that are looked at


def license_of(folder: Path) -> str | None:
    """Return the licence that the folder's model card names in its front matter, if any."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(_FRONT_MATTER).splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if line.strip() == "---":
            return None
        if key.strip() == "license":
            return value.strip() or None
    return None
