"""The files that hold a checkpoint's weights, and the tensors that they say to hold.

Which of a folder's files are read is as in transformers; what is a safetensors file is as in the
`safetensors` library. Pickled weights are read by another process, see `model.pickled`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from model.errors import ModelError
from model.files import read_object, reason, shown

# Bits of a number, by the name that safetensors gives its type.
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "I32": 32,
    "U32": 32,
    "I16": 16,
    "U16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_LARGEST_HEADER = 100_000_000  # bytes, as the library has it
_LARGEST_INDEX = 256 << 20
_DEEPEST = 127  # of nested values in a header, as the library's parser has it
_MOST = 1 << 64  # beyond which the library cannot count
_POINTER = b"version https://git-lfs"
_LONGEST_NAME = 255  # bytes of a file's name, in Linux


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint, without its data."""

    name: str  # without the prefix `transformer.`
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: F32, F16, BF16 …
    file: str
    nbytes: int
    offset: int = 0  # of its bytes in a safetensors file
    key: str = ""  # what the file calls it
    storage: str = ""  # the same for two tensors of a pickle that share their data


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would read, in its order; `ModelError` without any."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    raise ModelError(
        f"{folder} has no weights: expected model.safetensors or pytorch_model.bin, or an index of"
        " their shards"
    )


def _shards(index: Path) -> list[Path]:
    table = read_object(index, _LARGEST_INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} is no index of shards: expected a weight_map")
    paths = []
    for name in dict.fromkeys(map(str, table.values())):
        if name not in table.values():
            raise ModelError(f"{index} is no index of shards: {shown(name)} is no file's name")
        if Path(name).name != name:
            raise ModelError(f"{index} names a file outside of its folder: {shown(name)}")
        path = index.parent / name
        if not _can_be(name) or not path.is_file():
            raise ModelError(f"{shown(path)} is missing, although {index.name} names it")
        paths.append(path)
    return sorted(paths)


def _can_be(name: str) -> bool:
    """Whether Linux could have a file of that name."""
    try:
        return len(os.fsencode(name)) <= _LONGEST_NAME and "\0" not in name
    except UnicodeEncodeError:
        return False


def tensors_of(paths: list[Path]) -> list[TensorInfo]:
    """Read the headers of weight files; `ModelError` names the file and what is wrong with it."""
    found: list[TensorInfo] = []
    with Unpickler() as unpickler:
        for path in paths:
            _refuse_pointer(path)
            if path.suffix == ".safetensors":
                found += safetensors_header(path)
            else:
                found += unpickler.tensors(path)
    return found


def _refuse_pointer(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from None
    if start == _POINTER:
        raise ModelError(f"{path} is only a pointer to the weights; fetch them with git lfs pull")


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
            f"{path} is no safetensors file: its header is nested too deeply"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from None
    except ValueError as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {shown(error)}") from None


def _parse(text: str) -> dict[str, Any]:
    """Parse a header as strictly as the library: what Python alone takes is refused."""

    def constant(name: str) -> None:
        raise _Header(f"{name} is no JSON")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(found)
        if len(table) != len(found):
            raise _Header("a name is there twice")
        return table

    def whole(digits: str) -> int:
        return -1 if digits == "-0" else int(digits)  # to the library, -0 is no size

    table = json.loads(text, parse_constant=constant, parse_int=whole, object_pairs_hook=pairs)
    if not isinstance(table, dict):
        raise _Header("its header is no JSON object")
    if _depth(text) > _DEEPEST:
        raise _Header("its header is nested too deeply")
    if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
        try:
            json.dumps(table, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Header("a name is no Unicode") from None
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
        raise _Header(f"{shown(key)} is no tensor")
    shape, offsets, dtype = (entry.get(name) for name in ("shape", "data_offsets", "dtype"))
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise _Header(f"{shown(key)} has no shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _Header(f"{shown(key)} has no place")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Header(f"{shown(key)} is of the unknown type {shown(dtype)}")
    count = 1
    for length in shape:  # as the library counts, so that 0 does not hide a number too large
        count *= length
        if count >= _MOST:
            raise _Header(f"{shown(key)} is too large")
    bits = count * BITS[dtype]
    if bits >= _MOST or bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise _Header(f"{shown(key)} does not have the size of its shape")
    return TensorInfo(key, tuple(shape), dtype, file, bits // 8, start + offsets[0], key)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


class Unpickler:
    """A process that reads pickles for us, from when it is first asked to the end of its `with`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Unpickler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
            self._process = None

    def tensors(self, path: Path) -> list[TensorInfo]:
        """List a file's tensors."""
        answer, _ = self._ask(path, "list")
        return [
            TensorInfo(key, tuple(shape), dtype, path.name, nbytes, key=key, storage=storage)
            for key, shape, dtype, nbytes, storage in answer["tensors"]
        ]

    def open(self, path: Path, tensor: TensorInfo) -> IO[bytes]:
        """Ask for a tensor's bytes, which must be read to their end before anything else."""
        answer, stream = self._ask(path, "read", tensor.key)
        if answer["bytes"] != tensor.nbytes:
            raise ModelError(f"{path} has changed while it was read; try again")
        return stream

    def failed(self, path: Path) -> ModelError:
        """Say how the process ended."""
        assert self._process
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:  # it answers, but not as it should
            self._process.kill()
            code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return ModelError(
            f"{path} cannot be read: the process that unpickled it ended with {how}; the file is"
            " damaged, hostile or of another byte order"
        )

    def _ask(self, path: Path, what: str, *rest: str) -> tuple[dict[str, Any], IO[bytes]]:
        if self._process is None:
            program = str(Path(__file__).with_name("pickled.py"))
            self._process = subprocess.Popen(
                [sys.executable, "-P", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps([what, str(path), *rest]).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise self.failed(path) from None
        if missing := answer.get("missing"):
            raise ModelError(
                f"{path} is a pickle, and reading it needs {missing}: install piBLOOM with its"
                " extra 'reference' (pip install -e '.[reference]'), or save the model as"
                " safetensors"
            )
        if error := answer.get("error"):
            raise ModelError(f"{path} cannot be read: {error}")
        return answer, self._process.stdout
