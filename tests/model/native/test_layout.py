"""Quantised matrices, read back as the comment in layout.h describes each format."""

import ctypes
import random
from collections.abc import Callable, Sequence
from struct import unpack_from

import pytest

from model.baked import bake
from model.baked.format import PackStats
from model.native import library

GROUP, ROWS, LINE = 64, 16, 64


def w8(tile: bytes, lane: int, col: int) -> int:
    return int(unpack_from("b", tile, col // 4 * LINE + lane * 4 + col % 4)[0])


def w4(tile: bytes, lane: int, col: int) -> int:
    byte = tile[col // 8 * LINE + lane * 4 + col % 4]
    return (byte >> 4 if col // 4 % 2 else byte & 15) - 8


def w5(tile: bytes, lane: int, col: int) -> int:
    line = col // 8
    fifths = tile[8 * LINE + line // 4 * LINE + lane * 4 + col % 4]
    fifth = fifths >> line % 4 + (4 if col // 4 % 2 else 0) & 1
    return w4(tile, lane, col) + 8 + 16 * fifth - 16


def low(row: bytes, group: int, col: int) -> int:
    byte = row[group * 32 + col % 32]
    return (byte & 15 if col < 32 else byte >> 4) - 8


def low2(row: bytes, group: int, col: int) -> int:
    return (row[group * 16 + col % 16] >> col // 16 * 2 & 3) - 2


BLOCKS: dict[int, tuple[Callable[[bytes, int, int], int], int, int]] = {
    bake.W8: (w8, 1024, 127),
    bake.W4: (w4, 512, 8),
    bake.W5: (w5, 640, 16),
}  # how a value is read, the bytes of a tile, and the largest value
PLANES: dict[int, tuple[Callable[[bytes, int, int], int], int, int]] = {
    bake.LOW: (low, 32, 16),
    bake.LOW2: (low2, 16, 4),
}  # how a value is read, the bytes of a group, and how many of its steps the upper plane's step is


def some_rows(rows: int, cols: int) -> list[float]:
    draw = random.Random(rows * cols)
    return [draw.gauss(0, 0.02) for _ in range(rows * cols)]


def floats(values: Sequence[float]) -> "ctypes.Array[ctypes.c_float]":
    return (ctypes.c_float * len(values))(*values)


def scales_size(groups: int) -> int:
    return -(-groups * ROWS * 2 // LINE) * LINE


def half(data: bytes, at: int) -> float:
    return float(unpack_from("<e", data, at)[0])


@pytest.mark.parametrize("rows", [16, 5, 40])
@pytest.mark.parametrize("cols", [64, 20, 150])
@pytest.mark.parametrize("format_", BLOCKS)
def test_blocks(format_: int, rows: int, cols: int) -> None:
    read, tile_size, largest = BLOCKS[format_]
    values, stats = floats(some_rows(rows, cols)), PackStats()
    data = ctypes.create_string_buffer(bake._c().bloom_format_size(format_, rows, cols))
    assert bake._c().bloom_pack(format_, rows, cols, values, None, data, stats) == 0
    groups = -(-cols // GROUP)
    block_size = scales_size(groups) + groups * tile_size
    assert len(data) == -(-rows // ROWS) * block_size
    error = 0.0
    for row in range(-(-rows // ROWS) * ROWS):
        block = data.raw[row // ROWS * block_size :][:block_size]
        for col in range(groups * GROUP):
            group, lane = col // GROUP, row % ROWS
            tile = block[scales_size(groups) + group * tile_size :][:tile_size]
            scale, number = half(block, group * ROWS * 2 + lane * 2), read(tile, lane, col % GROUP)
            if row < rows and col < cols:
                assert abs(number) <= largest
                error += (values[row * cols + col] - scale * number) ** 2
            else:
                assert scale * number == 0  # padding
    assert error == pytest.approx(stats.squared_error, rel=1e-5)
    assert error < 3 / largest**2 * stats.squares


@pytest.mark.parametrize("rows", [16, 5])
@pytest.mark.parametrize("cols", [64, 20, 150])
@pytest.mark.parametrize("format_", PLANES)
def test_planes(format_: int, rows: int, cols: int) -> None:
    read, group_size, step = PLANES[format_]
    values, stats = floats(some_rows(rows, cols)), PackStats()
    size = library().bloom_format_size
    size.restype = ctypes.c_uint64
    high = ctypes.create_string_buffer(size(bake.W4, rows, cols))
    lower = ctypes.create_string_buffer(size(format_, rows, cols))
    norms = (ctypes.c_float * rows)()
    packed = bake._c().bloom_pack_embedding(format_, rows, cols, values, high, lower, norms, stats)
    assert packed == 0
    groups = -(-cols // GROUP)
    row_size = -(-groups * (group_size + 2) // 16) * 16
    assert len(lower) == rows * row_size
    error = 0.0
    for row in range(rows):
        below = lower.raw[row * row_size :][:row_size]
        square = 0.0
        for col in range(cols):
            group, lane = col // GROUP, row % ROWS
            scale = half(below, groups * group_size + group * 2)
            assert half(high.raw, group * ROWS * 2 + lane * 2) == step * scale
            tile = high.raw[scales_size(groups) + group * 512 :][:512]
            rest = read(below, group, col % GROUP)
            number = step * w4(tile, lane, col % GROUP) + rest
            square += (scale * rest) ** 2
            error += (values[row * cols + col] - scale * number) ** 2
        assert square**0.5 <= norms[row] <= square**0.5 * 1.0001
    assert error == pytest.approx(stats.squared_error, rel=1e-5)
    assert error < 3 / (8 * step) ** 2 * stats.squares
