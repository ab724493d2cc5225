"""The bytes that the native tokenizer works on, as `model/native/tokenizer.c` reads them."""

import ctypes

VERSION = 3  # of the bytes; enum TOKENIZER_VERSION
IS_SPECIAL, SINGLE_WORD, LSTRIP, RSTRIP, NEVER = 1, 2, 4, 8, 16  # of struct added
TRIM_SPACES, TRIM_BUT_FIRST = 1, 2


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
