"""BLOOM's tokenizer: text to token ids and back, by the `tokenizers` library.

Decoding is done here, byte by byte, so that a reply can be shown while it is written without ever
cutting a character in two.
"""

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers

from model.errors import ModelError

# Ids 0-3 in every BLOOM. Only the end may be drawn; none is ever shown.
UNKNOWN, BEGIN, END, PADDING = range(4)
NEVER_DRAWN = frozenset({UNKNOWN, BEGIN, PADDING})
_SPECIAL = {"<unk>": UNKNOWN, "<s>": BEGIN, "</s>": END, "<pad>": PADDING}


@dataclass(frozen=True)
class Encoding:
    """A text as tokens."""

    ids: list[int]
    pieces: list[str]  # each token's text; bytes of a cut character as \\x escapes
    offsets: list[tuple[int, int]]  # each token's characters in the text: first, one past the last


class Tokenizer:
    """A checkpoint's byte-level BPE."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self.size = inner.get_vocab_size(with_added_tokens=True)

    @classmethod
    def open(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json`; `ModelError` when it is missing, damaged or not BLOOM's kind."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path} is missing; a checkpoint folder needs its tokenizer")
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more precise
            raise ModelError(f"{path} cannot be read: {error}") from None
        found = {text: inner.token_to_id(text) for text in _SPECIAL}
        if found != _SPECIAL:
            raise ModelError(f"{path}: expected BLOOM's special tokens {_SPECIAL}, found {found}")
        if json.loads(inner.to_str())["decoder"] is None or "ByteLevel" not in repr(inner.decoder):
            raise ModelError(f"{path}: expected a byte-level tokenizer, as BLOOM's is")
        # A file keeps how it was last used; to cut or fill up a prompt is never ours to do.
        inner.no_truncation()
        inner.no_padding()
        return cls(inner)

    def encode(self, text: str) -> Encoding:
        """Split a text; ValueError when it holds half of a surrogate pair, which is no text."""
        try:
            encoding = self._inner.encode(text)
        except TypeError:
            raise ValueError("the text holds half of a surrogate pair") from None
        pieces = [self.bytes_of(id_).decode("utf-8", "backslashreplace") for id_ in encoding.ids]
        return Encoding(encoding.ids, pieces, encoding.offsets)

    def ids(self, text: str) -> list[int]:
        """Split a text, for its ids only."""
        try:
            return self._inner.encode(text).ids
        except TypeError:
            raise ValueError("the text holds half of a surrogate pair") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Join tokens to text; special tokens are left out."""
        shown = b"".join(self.bytes_of(id_) for id_ in ids if id_ not in _SPECIAL.values())
        return shown.decode("utf-8", "replace")

    def bytes_of(self, id_: int) -> bytes:
        """Return one token's bytes; `ValueError` for an id that the vocabulary lacks."""
        if id_ in self._added:
            return self._added[id_].encode()
        token = self._inner.id_to_token(id_)
        if token is None:
            raise ValueError(f"no token has the id {id_}; the vocabulary has {self.size}")
        return bytes(_BYTE_OF[symbol] for symbol in token)

    @cached_property
    def _added(self) -> dict[int, str]:
        return {id_: t.content for id_, t in self._inner.get_added_tokens_decoder().items()}


class StreamDecoder:
    """Decodes a reply token by token, holding back a character until its bytes are complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id_: int) -> str:
        """Return the text that this token completes, which may be none."""
        if id_ in _SPECIAL.values():
            return ""
        return self._decoder.decode(self._tokenizer.bytes_of(id_))


def _byte_symbols() -> dict[str, int]:
    """Return the byte that each of GPT-2's 256 printable stand-ins means (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_symbols()
