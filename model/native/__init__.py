"""The C of the native engine, loaded once a process through ctypes."""

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
