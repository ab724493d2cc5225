"""Write model/vocabulary/scripts.txt: which characters are of which script, as Unicode has it.

.venv/bin/python -m scripts.unicode_scripts    # from fontTools, which follows each Unicode version
"""

import re
from pathlib import Path

TABLE = Path(__file__).parents[1] / "model" / "vocabulary" / "scripts.txt"
_UNKNOWN = "Zzzz"  # of characters that are not assigned: they are left out


def table() -> str:
    """Return the table's text: a script a line, with its code, its name and its ranges."""
    from fontTools.unicodedata import Scripts

    ranges: dict[str, list[str]] = {}
    ends = [*(start - 1 for start in Scripts.RANGES[1:]), 0x10FFFF]
    for first, last, code in zip(Scripts.RANGES, ends, Scripts.VALUES, strict=True):
        if code != _UNKNOWN:
            name = f"{first:X}" if first == last else f"{first:X}-{last:X}"
            ranges.setdefault(code, []).append(name)
    source = Path(Scripts.__file__).read_text(encoding="utf-8")
    version = re.search(r"Scripts-([\d.]+)\.txt", source)
    assert version, "fontTools no longer says which Unicode version it follows"
    lines = [
        f"# Scripts.txt of Unicode {version[1]}. Copyright Unicode, Inc.; terms of use:",
        "# unicode.org/terms_of_use.html",
        "# Written by scripts/unicode_scripts.py: code (ISO 15924), name, characters.",
    ]
    for code, found in sorted(ranges.items()):
        lines.append(" ".join([code, Scripts.NAMES[code], *found]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="ascii", errors="strict")
