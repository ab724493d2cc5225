"""Unicode's Script property: which script a character is of, and scripts by their names.

Python's `unicodedata` lacks it. The table beside this module is 12 KB, so that baking needs no
package for it; `scripts/unicode_scripts.py` writes it, and a test holds it against fontTools.
"""

from bisect import bisect_right
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from itertools import chain
from pathlib import Path

from model.errors import ModelError
from model.files import shortened

# Of characters that many scripts use: digits, punctuation, emoji, and marks that take the script
# of the letter before them.
COMMON = "Common"
SHARED = frozenset({COMMON, "Inherited"})
UNKNOWN = "Unknown"  # of characters that Unicode has not assigned
# Codes of ISO 15924 that Unicode has no script for, since they are of several scripts or a variant.
_GROUPS = {
    "Hanb": ("Han", "Bopomofo"),
    "Hans": ("Han",),
    "Hant": ("Han",),
    "Hrkt": ("Hiragana", "Katakana"),
    "Jpan": ("Han", "Hiragana", "Katakana"),
    "Kore": ("Hangul", "Han"),
}


@cache
def script_of(character: str) -> str:
    """Return the name of a character's script; `UNKNOWN` for one that is not assigned."""
    firsts, lasts, names = _ranges()
    at = bisect_right(firsts, ord(character)) - 1
    return names[at] if at >= 0 and ord(character) <= lasts[at] else UNKNOWN


def characters_of(script: str) -> Iterator[str]:
    """Yield every character of a script, which is called by its name."""
    for first, last in _table()[script][1]:
        yield from map(chr, range(first, last + 1))


def scripts_named(name: str) -> tuple[str, ...]:
    """Return what a user calls a script by: its name or its code of ISO 15924, in any case.

    `ModelError` for one that Unicode does not know, with those that are called alike.
    """
    known = _names()
    if found := known.get(_plain(name)):
        return found
    close = get_close_matches(_plain(name), known, n=3, cutoff=0.6)
    meant = dict.fromkeys(chain.from_iterable(known[each] for each in close))
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    raise ModelError(f"Unicode knows no script {shortened(name)!r}{hint}")


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


@cache
def _names() -> dict[str, tuple[str, ...]]:
    """Return scripts by every name that they have, in small letters."""
    names = {_plain(code): scripts for code, scripts in _GROUPS.items()}
    for name, (code, _) in _table().items():
        names[_plain(code)] = names[_plain(name)] = (name,)
    return names


@cache
def _table() -> dict[str, tuple[str, list[tuple[int, int]]]]:
    """Return each script's code and ranges of characters, both ends included, by its name."""
    table = {}
    path = Path(__file__).with_name("scripts.txt")
    for line in path.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            code, name, *ranges = line.split()
            ends = [each.partition("-") for each in ranges]
            table[name] = code, [(int(a, 16), int(b or a, 16)) for a, _, b in ends]
    return table


@cache
def _ranges() -> tuple[list[int], list[int], list[str]]:
    """Return the first and last characters of all ranges, in order, and their scripts."""
    found = sorted((*ends, name) for name, (_, ranges) in _table().items() for ends in ranges)
    return [each[0] for each in found], [each[1] for each in found], [each[2] for each in found]
