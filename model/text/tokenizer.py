"""BLOOM's tokenizer: text to token ids and back. The work is done in C on compiled bytes.

Replies are decoded token by token, and a character is shown once all its bytes are there.
"""

import codecs
import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.native import check_struct, library
from model.text.compiled import IS_SPECIAL, AddedEntry, TokenizerHeader
from model.text.vocabulary import (
    BEGIN,
    END,
    PADDING,
    UNKNOWN,
    compile_vocabulary,
)

__all__ = [
    "BEGIN",
    "END",
    "NEVER_DRAWN",
    "PADDING",
    "UNKNOWN",
    "Encoding",
    "Spans",
    "StreamDecoder",
    "Tokenizer",
]

TEXT_TOKENS = 1024  # tokens that are joined to text at a time
NEVER_DRAWN = frozenset({UNKNOWN, BEGIN, PADDING})


@dataclass(frozen=True)
class Encoding:
    """A text as tokens."""

    ids: list[int]
    pieces: list[str]  # each token's text; bytes of a part of a character as \\x escapes
    offsets: list[tuple[int, int]]  # each token's characters in the text: first, one past the last


@dataclass(frozen=True)
class Spans:
    """A text's tokens as arrays of 12 bytes a token in all; as Python's numbers they take 150."""

    count: int
    ids: "ctypes.Array[ctypes.c_uint32]"  # [count or more], and so the others
    starts: "ctypes.Array[ctypes.c_uint32]"  # a token's first character in the text
    ends: "ctypes.Array[ctypes.c_uint32]"  # one past its last


class Tokenizer:
    """Byte-level BPE on compiled bytes, which are not copied; many threads may use it at once."""

    def __init__(self, address: int, size: int, owner: object) -> None:
        """Use the `size` bytes at `address`, which `owner` keeps alive."""
        self._address, self._owner = address, owner
        self._compiled_size = size
        if problem := _c().bloom_tokenizer_check(address, size):
            raise ModelError(f"the tokenizer cannot be used: {problem.decode()}")
        header = TokenizerHeader.from_address(address)
        self.size: int = header.size
        every = header.added + header.normalized
        added = (AddedEntry * every).from_address(address + header.added_at)
        around = (ctypes.c_uint32 * (header.before + header.after)).from_address(
            address + header.around_at
        )
        self.special = frozenset(each.id for each in added if each.flags & IS_SPECIAL)
        self._before, self._after = around[: header.before], around[header.before :]
        # Special tokens' texts, which replies lack.
        self.hidden: dict[str, int] = {
            ctypes.string_at(address + header.bytes_at + each.text_at, each.text_size).decode(
                "utf-8", "replace"
            ): each.id
            for each in added
            if each.flags & IS_SPECIAL and each.text_at + each.text_size <= header.bytes_size
        }

    @classmethod
    def from_bytes(cls, compiled: bytes) -> "Tokenizer":
        """Use what `compile_vocabulary` made."""
        owner = ctypes.create_string_buffer(compiled, len(compiled))
        return cls(ctypes.addressof(owner), len(compiled), owner)

    @classmethod
    def open(cls, folder: Path) -> "Tokenizer":
        """Compile the tokenizer of a checkpoint folder."""
        return cls.from_bytes(compile_vocabulary(folder))

    @property
    def compiled(self) -> bytes:
        """The bytes that it works on, as `compile_vocabulary` made them."""
        return ctypes.string_at(self._address, self._compiled_size)

    def spans(self, text: str, *, add_special_tokens: bool = True) -> Spans:
        """Split a text; ValueError when it holds half of a surrogate pair.

        With `add_special_tokens`, what the tokenizer puts before and behind a prompt is added, such
        as the beginning `<s>`; a conversation's template writes such tokens itself.
        """
        data = _utf8(text)
        before, after = (self._before, self._after) if add_special_tokens else ([], [])
        room = len(before) + len(data) + len(after)
        ids, starts, ends = ((ctypes.c_uint32 * room)() for _ in range(3))
        skipped = [ctypes.byref(each, 4 * len(before)) for each in (ids, starts, ends)]
        count = len(before) + self._encode(data, *skipped)
        ids[: len(before)] = before
        ids[count : count + len(after)] = after
        return Spans(count + len(after), ids, starts, ends)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Split a text, as `spans` does, into Python's lists."""
        found = self.spans(text, add_special_tokens=add_special_tokens)
        ids = found.ids[: found.count]
        offsets = zip(found.starts[: found.count], found.ends[: found.count], strict=True)
        return Encoding(ids, [self.piece(id_) for id_ in ids], list(offsets))

    def piece(self, id_: int) -> str:
        """Return one token's text; bytes of a part of a character as \\x escapes."""
        return self.bytes_of(id_).decode("utf-8", "backslashreplace")

    def ids(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Split a text, as `spans` does, for its ids only."""
        data = _utf8(text)
        ids = (ctypes.c_uint32 * len(data))()
        found = ids[: self._encode(data, ids, None, None)]
        return self._before + found + self._after if add_special_tokens else found

    def decode(self, ids: Iterable[int]) -> str:
        """Join tokens to text; special tokens are left out."""
        return "".join(self.texts(ids))

    def texts(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens, `TEXT_TOKENS` of them at a time."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        shown = (id_ for id_ in ids if id_ not in self.special)
        while some := list(islice(shown, TEXT_TOKENS)):
            yield decoder.decode(b"".join(map(self.bytes_of, some)))
        yield decoder.decode(b"", final=True)

    def bytes_of(self, id_: int) -> bytes:
        """Return one token's bytes; `ValueError` for an id that the vocabulary lacks."""
        length = ctypes.c_uint32()
        found = _token()(self._address, id_, length) if 0 <= id_ < self.size else None
        if found is None:
            raise ValueError(f"no token has the id {id_}; the vocabulary has {self.size}")
        return ctypes.string_at(found, length.value)

    def _encode(self, data: bytes, *buffers: Any) -> int:
        count: int = _c().bloom_encode(self._address, data, len(data), *buffers)
        if count < 0:
            raise MemoryError(f"there is no memory to split a text of {len(data)} bytes")
        return count


class StreamDecoder:
    """Decodes a reply token by token, holding back a character until its bytes are complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id_: int) -> str:
        """Return the text that this token completes, which may be none."""
        if id_ in self._tokenizer.special:
            return ""
        return self._decoder.decode(self._tokenizer.bytes_of(id_))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None


@cache
def _c() -> ctypes.CDLL:
    c, pointer = library(), ctypes.c_void_p
    c.bloom_tokenizer_check.argtypes = (pointer, ctypes.c_uint64)
    c.bloom_tokenizer_check.restype = ctypes.c_char_p
    c.bloom_encode.argtypes = (pointer, ctypes.c_char_p, ctypes.c_uint64, pointer, pointer, pointer)
    c.bloom_encode.restype = ctypes.c_int64
    check_struct("tokenizer_header", TokenizerHeader)
    check_struct("added", AddedEntry)
    return c


@cache
def _token() -> Callable[..., int | None]:
    """Return bloom_token, called with the interpreter's lock held.

    It is very short; giving up the lock at each call makes it a hundred times slower when many
    threads call it.
    """
    u32 = ctypes.c_uint32
    kind = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, u32, ctypes.POINTER(u32))
    return kind(("bloom_token", library()))
