"""A checkpoint folder as the hub ships it, checked before anything is loaded.

Weights may be safetensors or `pytorch_model.bin`, whole or sharded. A `.bin` is a pickle; it is
only ever read by torch's restricted unpickler, which builds tensors and refuses code.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from model.config import BloomConfig
from model.errors import ModelError
from model.generation_config import GenerationConfig
from model.tokenizer import Tokenizer

PREFIX = "transformer."
_TIED = "lm_head.weight"  # written by some exporters, though it is the word embedding again
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER = 100_000_000  # bytes, as the format says
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint, without its data."""

    name: str  # without the prefix `transformer.`
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: F32, F16, BF16 …
    file: str
    nbytes: int
    offset: int = 0  # of its bytes in a safetensors file


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files were found to be whole, and to fit each other."""

    folder: Path
    config: BloomConfig
    tensors: list[TensorInfo]
    generation: GenerationConfig

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read the folder's headers; `ModelError` names the file and what was expected of it."""
        check_folder(folder)
        config = BloomConfig.open(folder / "config.json")
        generation = GenerationConfig.open(folder, config.vocab_size)
        config = replace(config, eos_token_ids=generation.eos_token_ids)
        tensors = [tensor for path in weight_files(folder) for tensor in _tensors(path)]
        _check_shapes(folder, config, tensors)
        return cls(folder, config, tensors, generation)

    @cached_property
    def files(self) -> list[Path]:
        """Every file of the folder, by name."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    @property
    def parameters(self) -> int:
        """Number of weights; the tied output head is not counted again."""
        sizes = {tensor.name: math.prod(tensor.shape) for tensor in self.tensors}
        sizes.pop(_TIED, None)
        return sum(sizes.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer; `ModelError` when it has more entries than the embedding has rows."""
        tokenizer = Tokenizer.open(self.folder)
        if tokenizer.size > self.config.vocab_size:
            raise ModelError(
                f"{self.folder / 'tokenizer.json'} has {tokenizer.size} entries, but the model's"
                f" word embedding has only {self.config.vocab_size} rows"
            )
        return tokenizer


def check_folder(folder: Path) -> None:
    """Refuse a path that is no folder."""
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "is not there"
        raise ModelError(
            f"{folder} {problem}; a checkpoint is a folder with config.json, tokenizer.json and"
            " model.safetensors or pytorch_model.bin, and a baked model is a file NAME.bloom"
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights; `ModelError` when there are none."""
    for name in _WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
        if (folder / name).is_file():
            return [folder / name]
    raise ModelError(f"{folder} has no weights: expected {' or '.join(_WEIGHT_FILES)}, or an index")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{index} is no index of shards: expected a weight_map") from None
    paths = []
    for name in names:
        path = index.parent / str(name)
        if Path(str(name)).name != name:
            raise ModelError(f"{index} names a file outside of its folder: {name!r}")
        if not path.is_file():
            raise ModelError(f"{path} is missing, although {index.name} names it")
        paths.append(path)
    return paths


def _tensors(path: Path) -> Iterator[TensorInfo]:
    if path.suffix == ".safetensors":
        yield from _safetensors(path)
    else:
        yield from _pickled(path)


def _safetensors(path: Path) -> Iterator[TensorInfo]:
    """Read the header: a length, JSON, and the tensors' bytes behind it."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, _LARGEST_HEADER):
                raise ValueError("its header is longer than the file")
            table = json.loads(file.read(length))
        for name, found in table.items():
            if name == "__metadata__":
                continue
            shape, (start, end) = tuple(found["shape"]), found["data_offsets"]
            if not all(isinstance(each, int) and each >= 0 for each in (*shape, start, end)):
                raise ValueError(f"{name} has no shape")
            width = _WIDTHS[found["dtype"]]
            if end - start != width * math.prod(shape):
                raise ValueError(f"{name} does not have the size of its shape")
            if 8 + length + end > size:
                raise ValueError(f"{name} reaches beyond the end of the file")
            yield TensorInfo(
                name.removeprefix(PREFIX),
                shape,
                found["dtype"],
                path.name,
                end - start,
                8 + length + start,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {error}") from None


def _pickled(path: Path) -> Iterator[TensorInfo]:
    import pickle

    import torch

    with path.open("rb") as file:
        if file.read(20).startswith(b"version https://git"):
            raise ModelError(
                f"{path} is only a pointer to the weights; fetch them with git lfs pull"
            )
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        # On the device "meta" only shapes are made; weights_only is the restricted unpickler.
        data = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors, and is refused: unpickling it could run code"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} is truncated or no PyTorch file: {reason}") from None
    if not isinstance(data, dict) or not all(isinstance(v, torch.Tensor) for v in data.values()):
        raise ModelError(f"{path}: expected a dictionary of tensors")
    for name, tensor in data.items():
        dtype = names.get(tensor.dtype, str(tensor.dtype))
        shape = tuple(tensor.shape)
        yield TensorInfo(name.removeprefix(PREFIX), shape, dtype, path.name, tensor.nbytes)


def _check_shapes(folder: Path, config: BloomConfig, tensors: list[TensorInfo]) -> None:
    found = {tensor.name: tensor for tensor in tensors}
    for name, shape in config.shapes().items():
        tensor = found.get(name)
        if tensor is None:
            raise ModelError(
                f"{folder}: the weights lack {name}, which a BLOOM of its config.json has"
            )
        if tensor.shape != shape:
            raise ModelError(
                f"{folder / tensor.file}: {name} is {list(tensor.shape)},"
                f" but config.json asks for {list(shape)}"
            )
