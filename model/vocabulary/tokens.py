"""Which scripts a token is of. A token is bytes: whole characters, pieces of some, or both."""

import re
from collections.abc import Collection

from model.vocabulary.scripts import COMMON, SHARED, characters_of, script_of

MIXED, PIECES = "several", "pieces of characters"  # kinds of tokens that no one script has

_CONTINUATION = re.compile(rb"[\x80-\xbf]{0,3}")  # the end of a character that began before
# The beginning of a character that ends after the token: its first byte, and too few others.
_UNFINISHED = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")


class KeptScripts:
    """Tells which tokens a text of some scripts can hold.

    Characters that all scripts share, such as digits, go with any. A token with a piece of a
    character counts if the piece is of a character of these scripts: so a text in them takes the
    same tokens as before, also where a rare character takes several.
    """

    def __init__(self, scripts: Collection[str]) -> None:
        self._scripts = SHARED | set(scripts)
        # Pieces of characters, by where they lie: the first bytes, the last ones, the middle.
        self._firsts, self._lasts, self._middles = set[bytes](), set[bytes](), set[bytes]()
        for script in self._scripts:
            for character in characters_of(script):
                data = character.encode()
                for at in range(1, len(data)):
                    self._firsts.add(data[:at])
                    self._lasts.add(data[at:])
                    self._middles.update(data[at:end] for end in range(at + 1, len(data)))

    def hold(self, token: bytes) -> bool:
        """Whether a text in these scripts can hold the token; an empty one, or no text: False."""
        last, text, first = split(token)
        if text is None or not token:
            return False
        if not text and not first:
            return last in self._lasts or last in self._middles
        return (
            (not last or last in self._lasts)
            and all(script_of(character) in self._scripts for character in text)
            and (not first or first in self._firsts)
        )


def split(token: bytes) -> tuple[bytes, str | None, bytes]:
    """Return a token's end of a character, its whole characters, and its beginning of another.

    The characters are None if they are not UTF-8: such a token can be in no text.
    """
    found = _CONTINUATION.match(token)
    start = found.end() if found else 0
    unfinished = _UNFINISHED.search(token, start)
    end = unfinished.start() if unfinished else len(token)
    try:
        return token[:start], token[start:end].decode(), token[end:]
    except UnicodeDecodeError:
        return b"", None, b""


def kind_of(token: bytes) -> str:
    """Return a token's script; `MIXED` for more than one, `PIECES` if it holds any."""
    last, text, first = split(token)
    if not text or last or first:
        return PIECES
    scripts = {script_of(character) for character in text}
    own = scripts - SHARED
    return MIXED if len(own) > 1 else next(iter(own), COMMON)


def has_letter(token: bytes) -> bool:
    """Whether a token holds a letter of a script of its own."""
    _, text, _ = split(token)
    return any(each.isalpha() and script_of(each) not in SHARED for each in text or "")
