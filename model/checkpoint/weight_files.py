"""The files that hold a checkpoint's weights, and the tensors that they hold.

The choice among a folder's files is the same as in transformers.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from model.checkpoint.pickled import Unpickler
from model.checkpoint.safetensors import safetensors_header
from model.checkpoint.tensor import TensorInfo
from model.errors import ModelError
from model.files import read_object, reason, shown

INDEX = ".index.json"  # how the name of an index of shards ends
LARGEST_INDEX = 256 << 20  # bytes
_POINTER = b"version https://git-lfs"
# What AutoGPTQ calls its one file, unless it is told otherwise.
_NAMES_OF_GPTQ = [
    f"gptq_model-{bits}bit-{size}g{suffix}"
    for suffix in (".safetensors", ".bin")
    for bits in (4, 8, 2, 3)
    for size in (128, 64, 32, -1, 16, 256, 512, 1024)
]
_LONGEST_NAME = 255  # bytes of a file's name, in Linux
# Weights that are not read, by the ends of their names.
_OTHERS = {
    ".gguf": "of llama.cpp (GGUF)",
    ".onnx": "of ONNX",
    ".h5": "of TensorFlow",
    ".ckpt.index": "of TensorFlow",
    ".msgpack": "of Flax",
    ".pt": "of a training program or a quantiser",
    ".pth": "of a training program or a quantiser",
}


def main_file(has: Callable[[str], bool]) -> str | None:
    """Return the file of weights that transformers would read, or the index that names its shards.

    `has` tells which names there are, in a folder or on the hub; None when none of them is.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        for each in (name, name + INDEX):
            if has(each):
                return each
    return next(filter(has, _NAMES_OF_GPTQ), None)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would read, in its order; `ModelError` without any."""
    name = main_file(lambda name: (folder / name).is_file())
    if name is not None:
        return _shards(folder / name) if name.endswith(INDEX) else [folder / name]
    raise ModelError(no_weights(str(folder), names_of(folder)))


def no_weights(where: str, names: Iterable[str]) -> str:
    """Say that a folder or repository of these files has no weights, and what it has instead."""
    return (
        f"{where} has no weights: expected model.safetensors or pytorch_model.bin, or an index of"
        f" their shards{other_weights(names)}"
    )


def other_weights(names: Iterable[str]) -> str:
    """Name a file of weights that are not read, as the end of a sentence; nothing without one."""
    for name in sorted(names):
        for end, kind in _OTHERS.items():
            if name.endswith(end):
                return f"; {shown(Path(name))} is {kind}, which is not read"
    return ""


def names_of(folder: Path) -> Iterator[str]:
    """Yield the names of a folder's files, and of those one folder below."""
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        yield str(path.relative_to(folder))


def _shards(index: Path) -> list[Path]:
    table = read_object(index, LARGEST_INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} is not an index of shards: expected a weight_map")
    paths = []
    for name in dict.fromkeys(map(str, table.values())):
        if name not in table.values():
            raise ModelError(f"{index} is not an index of shards: {shown(name)} is not a file name")
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
