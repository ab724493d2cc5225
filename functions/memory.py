"""Memory is given back to the system after large requests.

glibc keeps what was freed, in up to eight heaps for each core. After a burst of large requests a
pod would stay large for good, and be killed at the next.
"""

import ctypes
from functools import cache

# mallopt's names of what is set (malloc.h), and the values.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
ARENAS = 2  # heaps that threads share
MAPPED = 128 << 10  # bytes; a block of that size or more is mapped, and unmapped when freed
NOTED = 256 << 10  # bytes of large requests after which freed memory is given back
PAUSE = 1.0  # seconds, at least, from one time to the next

_noted, _last = 0, 0.0


def configure() -> None:
    """Set how glibc takes memory from the system; to be called before there are threads."""
    if mallopt := getattr(_c(), "mallopt", None):  # glibc's; others have no such thing
        mallopt(_ARENA_MAX, ARENAS)
        # Setting these also keeps glibc from raising them by itself, to 32 MiB.
        mallopt(_MMAP_THRESHOLD, MAPPED)
        mallopt(_TRIM_THRESHOLD, MAPPED)


def note(size: int) -> None:
    """Note a large request of `size` bytes, which has freed many times as much memory."""
    global _noted
    _noted += size


def give_back(now: float) -> None:
    """Give freed memory back after large requests; to be called now and then."""
    global _noted, _last
    if _noted < NOTED or now - _last < PAUSE:
        return
    _noted, _last = 0, now
    if trim := getattr(_c(), "malloc_trim", None):
        trim(0)


@cache
def _c() -> ctypes.CDLL:
    return ctypes.CDLL(None)
