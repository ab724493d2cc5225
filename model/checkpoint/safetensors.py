"""The header of a safetensors file, checked as strictly as the `safetensors` library does."""

import json
import os
import re
from pathlib import Path
from typing import Any

from model.checkpoint.tensor import DTYPE_BITS, TensorInfo
from model.errors import ModelError
from model.files import reason, shown

_LARGEST_HEADER = 100_000_000  # bytes, the same as in the library
_DEEPEST = 127  # levels of nested values, the same as in the library's parser
_MOST = 1 << 64  # the library cannot count further


class _Header(ValueError):
    """What is wrong with a safetensors file."""


def safetensors_header(path: Path) -> list[TensorInfo]:
    """Read a safetensors file's header: a length, JSON, and the tensors' bytes behind it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise _Header("its header is longer than the file, or than a header may be")
            text = file.read(length).decode()
        return _entries(path.name, _parse(text), 8 + length, size)
    except RecursionError:
        raise ModelError(
            f"{path} is not a safetensors file: its header is nested too deeply"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from None
    except ValueError as error:
        raise ModelError(f"{path} is truncated or not a safetensors file: {shown(error)}") from None


def _parse(text: str) -> dict[str, Any]:
    """Parse a header as strictly as the library; Python's own parser accepts more."""

    def constant(name: str) -> None:
        raise _Header(f"{name} is not JSON")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(found)
        if len(table) != len(found):
            raise _Header("a name is there twice")
        return table

    def whole(digits: str) -> int:
        return -1 if digits == "-0" else int(digits)  # the library does not take -0 for a size

    table = json.loads(text, parse_constant=constant, parse_int=whole, object_pairs_hook=pairs)
    if not isinstance(table, dict):
        raise _Header("its header is not a JSON object")
    if _depth(text) > _DEEPEST:
        raise _Header("its header is nested too deeply")
    if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
        try:
            json.dumps(table, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Header("a name is not valid Unicode") from None
    return table


def _depth(text: str) -> int:
    """How deeply values are nested in valid JSON."""
    deepest = depth = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        if mark[0] != '"':
            depth += 1 if mark in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _entries(file: str, table: dict[str, Any], start: int, size: int) -> list[TensorInfo]:
    """Check what the library checks: that the tensors fill the file, without holes or overlaps."""
    metadata = table.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(each, str) for each in metadata.values())
    ):
        raise _Header("__metadata__ does not hold texts by name")
    found = [_entry(file, name, entry, start) for name, entry in table.items()]
    end = start
    for tensor in sorted(found, key=lambda each: (each.offset, each.nbytes)):
        if tensor.offset != end:
            raise _Header(f"{shown(tensor.key)} does not begin where the one before it ends")
        end += tensor.nbytes
    if end != size:
        problem = "end before its data" if end < size else "reach beyond its end"
        raise _Header(f"its tensors {problem}: {size:,} bytes instead of {end:,}")
    return found


def _entry(file: str, key: str, entry: Any, start: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise _Header(f"{shown(key)} is not a tensor")
    shape, offsets, dtype = (entry.get(name) for name in ("shape", "data_offsets", "dtype"))
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise _Header(f"{shown(key)} has no shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _Header(f"{shown(key)} has no place")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _Header(f"{shown(key)} is of the unknown type {shown(dtype)}")
    count = 1
    for length in shape:  # as the library counts, so that 0 does not hide a number too large
        count *= length
        if count >= _MOST:
            raise _Header(f"{shown(key)} is too large")
    bits = count * DTYPE_BITS[dtype]
    if bits >= _MOST or bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise _Header(f"{shown(key)} does not have the size of its shape")
    return TensorInfo(key, tuple(shape), dtype, file, bits // 8, start + offsets[0], key)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST
