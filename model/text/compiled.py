"""The bytes that the native tokenizer works on, as `model/native/tokenizer.c` reads them."""

import ctypes
from array import array

from model.errors import ModelError

VERSION = 3  # of the bytes; enum TOKENIZER_VERSION
IS_SPECIAL, SINGLE_WORD, LSTRIP, RSTRIP, NEVER = 1, 2, 4, 8, 16  # of struct added
TRIM_SPACES, TRIM_BUT_FIRST = 1, 2
_MULTIPLIER = 0x9E3779B97F4A7C15


class TokenizerHeader(ctypes.LittleEndianStructure):
    """`struct tokenizer_header`."""

    _fields_ = (
        ("magic", ctypes.c_char * 4),
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("merges", ctypes.c_uint32),
        ("buckets", ctypes.c_uint32),
        ("added", ctypes.c_uint32),
        ("normalized", ctypes.c_uint32),
        ("before", ctypes.c_uint32),
        ("after", ctypes.c_uint32),
        ("trim", ctypes.c_uint32),
        ("starts_at", ctypes.c_uint32),
        ("bytes_at", ctypes.c_uint32),
        ("bytes_size", ctypes.c_uint32),
        ("merges_at", ctypes.c_uint32),
        ("buckets_at", ctypes.c_uint32),
        ("added_at", ctypes.c_uint32),
        ("around_at", ctypes.c_uint32),
        ("single", ctypes.c_uint32 * 256),
    )


class AddedEntry(ctypes.LittleEndianStructure):
    """`struct added`."""

    _fields_ = (
        ("id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("text_at", ctypes.c_uint32),
        ("text_size", ctypes.c_uint32),
    )


def joined(header: TokenizerHeader, **parts: bytes) -> bytes:
    """Put the parts behind the header, each at a multiple of 4 bytes, which the header notes."""
    out = bytearray(ctypes.sizeof(header))
    for field, part in parts.items():
        setattr(header, field, len(out))
        out += part.ljust(-(-len(part) // 4) * 4, b"\0")
    out[: ctypes.sizeof(header)] = bytes(header)
    return bytes(out)


def hash_table(merges: "array[int]") -> "array[int]":
    """Place each merge by its pair, with linear probing, at a load of two thirds at most."""
    count = len(merges) // 3
    size = 1
    while size < count * 3 // 2 + 1:
        size *= 2
    table, mask = array("i", [-1]) * size, size - 1
    pairs = set()
    for merge in range(count):
        left, right = merges[3 * merge], merges[3 * merge + 1]
        if (left, right) in pairs:
            raise ModelError("a pair of tokens is merged twice")
        pairs.add((left, right))
        slot = ((left << 32 | right) * _MULTIPLIER >> 32) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = merge
    return table
