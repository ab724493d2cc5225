"""A checkpoint's weights as float32, some rows at a time, whatever the format of the file."""

import ctypes
import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.checkpoint.pickled import Unpickler
from model.checkpoint.tensor import TensorInfo
from model.errors import ModelError
from model.native import library

ROWS_AT_ONCE = 4096  # of a tensor; a multiple of 16
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # types that are read, and bytes of a number
_MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 has no name for it


@dataclass(frozen=True)
class Floats:
    """Rows of float32, in memory that C can read."""

    values: "ctypes.Array[ctypes.c_float]"
    rows: int
    cols: int

    @classmethod
    def empty(cls, rows: int, cols: int) -> "Floats":
        """Make room for some rows, all zeros."""
        return cls((ctypes.c_float * (rows * cols))(), rows, cols)

    def widened(self, cols: int) -> "Floats":
        """Return a single row with zeros behind it."""
        wide = Floats.empty(1, cols)
        ctypes.memmove(wide.values, self.values, ctypes.sizeof(self.values))
        return wide


class Reader:
    """Reads tensors as float32; use it in a `with` block, which closes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unpickler = Unpickler()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._unpickler.__exit__()

    def rows(self, info: TensorInfo) -> Iterator[Floats]:
        """Yield consecutive rows, up to 4,096 at once, of those that are kept; a vector is one row.

        The rows of one tensor must be read to their end before those of another one in a pickle.
        """
        rows = self._all_rows(info)
        return rows if info.kept is None else _kept(rows, info.kept)

    def _all_rows(self, info: TensorInfo) -> Iterator[Floats]:
        rows, cols = info.shape if len(info.shape) == 2 else (1, math.prod(info.shape))
        read = self._mapped if info.file.endswith(".safetensors") else self._unpickled
        for first, address in read(info, rows, cols):
            count = min(ROWS_AT_ONCE, rows - first)
            floats = Floats.empty(count, cols)
            if _c().bloom_widen(info.dtype.encode(), address, count * cols, floats.values):
                raise ModelError(f"{info.file}: {info.name} is of type {info.dtype}, no weight's")
            yield floats

    def _mapped(self, info: TensorInfo, rows: int, cols: int) -> Iterator[tuple[int, int]]:
        """Yield first rows, and where their data is in a safetensors file's mapping."""
        with _mapping(self._folder / info.file) as start:
            for first in range(0, rows, ROWS_AT_ONCE):
                yield first, start + info.offset + first * cols * TYPES[info.dtype]

    def _unpickled(self, info: TensorInfo, rows: int, cols: int) -> Iterator[tuple[int, int]]:
        """Yield first rows, and where their data is in memory, as another process unpickles it."""
        path = self._folder / info.file
        stream = self._unpickler.open(path, info)
        for first in range(0, rows, ROWS_AT_ONCE):
            size = min(ROWS_AT_ONCE, rows - first) * cols * TYPES[info.dtype]
            data = stream.read(size)
            if len(data) < size:
                raise self._unpickler.failed(path)
            yield first, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


@contextmanager
def _mapping(path: Path) -> Iterator[int]:
    try:
        with path.open("rb") as file:
            # ctypes needs it writable; nothing is written, so no memory has to be reserved.
            flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
            data = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    view = (ctypes.c_char * len(data)).from_buffer(data)
    try:
        yield ctypes.addressof(view)
    finally:
        del view
        data.close()


def _kept(blocks: Iterator[Floats], kept: Sequence[int]) -> Iterator[Floats]:
    """Yield some of the rows, whose numbers ascend, again up to 4,096 at once."""
    first = done = filled = 0  # rows: before the block, that were copied, and those in `some`
    some: Floats | None = None
    for block in blocks:
        while done < len(kept) and kept[done] < first + block.rows:
            some = some or Floats.empty(min(ROWS_AT_ONCE, len(kept) - done), block.cols)
            size = 4 * block.cols
            ctypes.memmove(
                ctypes.byref(some.values, filled * size),
                ctypes.byref(block.values, (kept[done] - first) * size),
                size,
            )
            done, filled = done + 1, filled + 1
            if filled == some.rows:
                yield some
                some, filled = None, 0
        first += block.rows


def same_values(folder: Path, one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors of a shape hold the same numbers, once they are float32."""
    if one.storage and (one.storage, one.file) == (other.storage, other.file):
        return True
    with Reader(folder) as first, Reader(folder) as second:
        pairs = zip(first.rows(one), second.rows(other), strict=True)
        return all(_c().bloom_same(a.values, b.values, a.rows * a.cols) for a, b in pairs)


@cache
def _c() -> ctypes.CDLL:
    c, pointer = library(), ctypes.c_void_p
    c.bloom_widen.argtypes = (ctypes.c_char_p, pointer, ctypes.c_uint64, pointer)
    c.bloom_same.argtypes = (pointer, pointer, ctypes.c_uint64)
    return c
