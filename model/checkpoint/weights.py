"""A checkpoint's weights as float32, some rows at a time, whatever the format of the file."""

import ctypes
import math
import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from model.checkpoint.pickled import Unpickler
from model.checkpoint.tensor import Packed, TensorInfo
from model.errors import ModelError
from model.native import library

ROWS_AT_ONCE = 4096  # of a tensor; a multiple of 16
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # types that are read, and bytes of a number
GROUP = 64  # columns that share a scale in a baked model
ASYMMETRIC, BAD_SCALE, BAD_GROUP, BAD_ZERO = 1, -1, -2, -3  # enum bloom_gptq_problem
_GPTQ_PROBLEMS = {
    BAD_SCALE: "holds a scale that is not finite; the checkpoint is damaged",
    BAD_GROUP: "has a column of a group that is not there (g_idx); the checkpoint is damaged",
    BAD_ZERO: "holds a zero of which programs make different numbers, since the checkpoint_format"
    " gptq cannot store it; save the model as gptq_v2",
}
_MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 has no name for it


class Gptq(ctypes.Structure):
    """`struct bloom_gptq`: a matrix as GPTQ packs it."""

    _fields_ = (
        ("rows", ctypes.c_uint64),
        ("cols", ctypes.c_uint64),
        ("groups", ctypes.c_uint64),
        ("group_size", ctypes.c_uint64),
        ("bits", ctypes.c_uint32),
        ("zero_offset", ctypes.c_uint32),
        ("qweight", ctypes.c_void_p),
        ("qzeros", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("group_of_col", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Floats:
    """Rows of float32, in memory that C can read."""

    values: "ctypes.Array[ctypes.c_float]"
    rows: int
    cols: int
    # Of quantised weights, [rows][groups of 64 columns]: the scale of each group's first column.
    scales: "ctypes.Array[ctypes.c_float] | None" = None

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
        if info.packed:
            yield from self._dequantised(info, info.packed)
            return
        rows, cols = info.shape if len(info.shape) == 2 else (1, math.prod(info.shape))
        read = self._mapped if info.file.endswith(".safetensors") else self._unpickled
        for first, address in read(info, rows, cols):
            count = min(ROWS_AT_ONCE, rows - first)
            floats = Floats.empty(count, cols)
            if _c().bloom_widen(info.dtype.encode(), address, count * cols, floats.values):
                raise ModelError(f"{info.file}: {info.name} is of type {info.dtype}, no weight's")
            yield floats

    def whole(self, info: TensorInfo) -> Floats:
        """Read all rows of a tensor at once, or all that are kept."""
        rows, cols = info.shape if len(info.shape) == 2 else (1, math.prod(info.shape))
        whole, at = Floats.empty(rows if info.kept is None else len(info.kept), cols), 0
        for some in self.rows(info):
            ctypes.memmove(ctypes.byref(whole.values, at), some.values, ctypes.sizeof(some.values))
            at += ctypes.sizeof(some.values)
        return whole

    def zeros_are_half(self, info: TensorInfo) -> bool:
        """Whether GPTQ quantised a matrix around 0, with as many codes below as above."""
        assert info.packed
        with self._packed(info, info.packed) as matrix:
            return _check_packed(info, matrix) == 0

    def scales_are_halves(self, info: TensorInfo) -> bool:
        """Whether fp16 keeps every scale of a matrix that GPTQ quantised."""
        assert info.packed
        scales = list(self.whole(info.packed.scales).values)
        form = f"<{len(scales)}e"
        try:
            return list(struct.unpack(form, struct.pack(form, *scales))) == scales
        except OverflowError:
            return False

    def group_of_columns(self, info: TensorInfo) -> list[int]:
        """Return the group of each column of a matrix that GPTQ quantised, as it is stored."""
        assert info.packed
        with self._packed(info, info.packed) as matrix:
            _check_packed(info, matrix)
            if not info.packed.g_idx:
                return [col // matrix.group_size for col in range(matrix.cols)]
            return list((ctypes.c_int32 * matrix.cols).from_address(matrix.group_of_col))

    def _dequantised(self, info: TensorInfo, packed: Packed) -> Iterator[Floats]:
        with self._packed(info, packed) as matrix:
            _check_packed(info, matrix)
            for first in range(0, matrix.rows, ROWS_AT_ONCE):
                count = min(ROWS_AT_ONCE, matrix.rows - first)
                scales = (ctypes.c_float * (count * -(-matrix.cols // GROUP)))()
                floats = replace(Floats.empty(count, matrix.cols), scales=scales)
                _c().bloom_gptq_rows(matrix, first, count, floats.values, scales)
                yield floats

    @contextmanager
    def _packed(self, info: TensorInfo, packed: Packed) -> Iterator[Gptq]:
        """Bring the parts of a matrix that GPTQ quantised into memory."""
        scales = self.whole(packed.scales)
        rows, cols = info.shape
        parts = (packed.qweight, packed.qzeros, packed.g_idx)
        with ExitStack() as stack:
            qweight, qzeros, g_idx = (
                part and stack.enter_context(self._bytes(part)) for part in parts
            )
            yield Gptq(
                rows=rows,
                cols=cols,
                groups=scales.rows,
                group_size=packed.group_size,
                bits=packed.bits,
                zero_offset=packed.zero_offset,
                qweight=qweight,
                qzeros=qzeros,
                scales=ctypes.addressof(scales.values),
                group_of_col=g_idx,
            )

    @contextmanager
    def _bytes(self, info: TensorInfo) -> Iterator[int]:
        """Yield where all bytes of a tensor are in memory, until the block ends."""
        path = self._folder / info.file
        if path.suffix == ".safetensors":
            with _mapping(path) as start:
                yield start + info.offset
            return
        data = self._unpickler.open(path, info).read(info.nbytes)
        if len(data) < info.nbytes:
            raise self._unpickler.failed(path)
        yield ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0

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


def _check_packed(info: TensorInfo, matrix: Gptq) -> int:
    """Refuse what cannot be dequantised; returns `ASYMMETRIC`, or 0 where every zero is half."""
    code: int = _c().bloom_gptq_check(matrix)
    if problem := _GPTQ_PROBLEMS.get(code):
        raise ModelError(f"{info.file}: {info.key.rpartition('.')[0]} {problem}")
    return code


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
    matrix = ctypes.POINTER(Gptq)
    c.bloom_gptq_check.argtypes = (matrix,)
    c.bloom_gptq_rows.argtypes = (matrix, ctypes.c_uint64, ctypes.c_uint64, pointer, pointer)
    c.bloom_gptq_rows.restype = None
    return c
