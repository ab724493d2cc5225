"""The C of the native engine, loaded once in a process through ctypes."""

import ctypes
import functools
from pathlib import Path

from model.errors import ModelError

LIBRARY = Path(__file__).parent / "libbloom.so"


@functools.cache
def library() -> ctypes.CDLL:
    """Return the loaded library; `ModelError` when it was never built for this machine."""
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ModelError(
            f"the native engine cannot be loaded ({error}); build it: python -m model.native.build"
        ) from None


def check_struct(name: str, declared: type[ctypes.Structure]) -> None:
    """Compare the size of a C structure, by its name, with that of its declaration in Python.

    `ModelError` when they differ: then the library was built from other sources.
    """
    size_of = library().bloom_struct_size
    size_of.restype, size_of.argtypes = ctypes.c_uint64, (ctypes.c_char_p,)
    size = size_of(name.encode())
    if size != ctypes.sizeof(declared):
        raise ModelError(
            f"the native engine was built from other sources (struct {name} has {size} bytes, not"
            f" {ctypes.sizeof(declared)}); build it again: python -m model.native.build"
        )
