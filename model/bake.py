"""Baking: a checkpoint folder becomes one file, `model.bloom`.

Tensors stream through: at no time is more than one of them, and a part of its quantised form, in
memory. The file grows under a temporary name and gets its own when it is whole and on disk.
"""

import ctypes
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.baked import KINDS, MAGIC, VERSION, Header, TensorEntry, tensor_name
from model.chat import ChatTemplate
from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.loader import license_of, model_name, sampling_of
from model.native import library
from model.native_tokenizer import bake_tokenizer

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # tensor, bytes done, bytes in all

BITS = (8, 4, 32)
F32, W8, W4, LOW = range(4)  # enum bloom_format
_ROWS_AT_ONCE = 4096  # of a tensor that are quantised in one go; a multiple of 16
_PAGE = 4096
_PLANES, _PLAIN = (0, 1, 2), 3  # the kinds of the word embedding


@dataclass(frozen=True)
class QuantisationError:
    """What rounding cost one tensor."""

    name: str
    relative: float  # root of the mean squared error, over that of the values
    largest: float  # of a single weight


def bake(
    checkpoint: Checkpoint,
    output: Path,
    *,
    bits: int = 8,
    progress: Progress = lambda name, done, total: None,
) -> list[QuantisationError]:
    """Write a model's file; returns each quantised tensor's error.

    `bits` is 8 or 4 for the layers (the word embedding has 8 either way), or 32 for none at all,
    which serves to compare engines. `ModelError` when a weight is not finite.
    """
    if bits not in BITS:
        raise ModelError(f"bits must be one of {', '.join(map(str, BITS))}, not {bits}")
    tokenizer = bake_tokenizer(checkpoint.folder)
    entries = list(_entries(checkpoint, bits))
    errors: list[QuantisationError] = []

    def write(file: IO[bytes], header: Header) -> list[TensorEntry]:
        total, done = sum(entry.size for entry in entries), 0
        offset = header.header_size
        for entry in entries:
            step = _PAGE if entry.size >= _PAGE else 64
            entry.offset = -(-offset // step) * step
            offset = entry.offset + entry.size
        file.truncate(offset)
        reader = _Reader(checkpoint)
        for group in _together(entries):
            name = (
                "word_embeddings.weight"
                if len(group) > 1
                else tensor_name(group[0].kind, group[0].layer)
            )
            progress(name, done, total)
            if error := _write_tensor(file, group, reader, name):
                errors.append(error)
            done += sum(entry.size for entry in group)
        file.seek(offset)
        progress("", total, total)
        config = checkpoint.config
        header.vocab_rows, header.hidden = config.vocab_size, config.hidden_size
        header.layers, header.heads = config.layers, config.heads
        header.max_context, header.eos = config.max_context, config.eos_token_id
        header.epsilon, header.bits = config.layer_norm_epsilon, bits
        return entries

    _write(output, tokenizer, write, lambda: _metadata(checkpoint, bits, errors), len(entries))
    return errors


def bake_tokenizer_only(checkpoint_folder: Path, output: Path) -> None:
    """Write a file that holds the tokenizer and no weights, for the tokenize function."""
    tokenizer = bake_tokenizer(checkpoint_folder)
    metadata = {"name": model_name(checkpoint_folder), "license": license_of(checkpoint_folder)}
    _write(output, tokenizer, lambda file, header: [], lambda: metadata, 0)


def _write(
    output: Path,
    tokenizer: bytes,
    weights: Callable[[IO[bytes], Header], list[TensorEntry]],
    metadata: Callable[[], dict[str, Any]],
    tensors: int,
) -> None:
    header_size = (
        -(-(ctypes.sizeof(Header) + tensors * ctypes.sizeof(TensorEntry)) // _PAGE) * _PAGE
    )
    partial = output.with_name(f"{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            header = Header(version=VERSION, byte_order=0x01020304, header_size=header_size)
            header.magic[:] = MAGIC
            file.write(bytes(header_size))
            entries = weights(file, header)
            header.tensors = len(entries)
            header.tokenizer_offset, header.tokenizer_size = _align(file, _PAGE), len(tokenizer)
            file.write(tokenizer)
            header.drawable = _vocabulary(tokenizer)
            described = json.dumps(metadata(), ensure_ascii=False).encode()
            header.metadata_offset, header.metadata_size = _align(file, 64), len(described)
            file.write(described)
            header.file_size = file.tell()
            _seal(file, header, entries)
        partial.replace(output)
        _sync_folder(output.parent)
    except OSError as error:
        raise ModelError(f"{output} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _seal(file: IO[bytes], header: Header, entries: list[TensorEntry]) -> None:
    """Write the header with the checksums of all that was written, and get it to the disk."""
    digest = hashlib.sha256()
    file.seek(header.header_size)
    while block := file.read(1 << 20):
        digest.update(block)
    header.sha256[:] = digest.digest()
    for _ in range(2):  # the checksum of the header is taken with its own place at zero
        table = bytes(header) + b"".join(bytes(entry) for entry in entries)
        page = table.ljust(header.header_size, b"\0")
        header.header_crc = header.header_crc or zlib.crc32(page)
    file.seek(0)
    file.write(page)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _align(file: IO[bytes], step: int) -> int:
    file.write(bytes(-file.tell() % step))
    return file.tell()


def _vocabulary(tokenizer: bytes) -> int:
    from model.native_tokenizer import NativeTokenizer

    return NativeTokenizer.from_bytes(tokenizer).size


def _metadata(checkpoint: Checkpoint, bits: int, errors: list[QuantisationError]) -> dict[str, Any]:
    folder = checkpoint.folder
    return {
        "name": model_name(folder),
        "license": license_of(folder),
        "parameters": checkpoint.parameters,
        "bits": bits,
        "chat_template": ChatTemplate.open(folder).source,
        "sampling": asdict(sampling_of(folder)),
        "errors": [asdict(error) for error in errors],
    }


def _entries(checkpoint: Checkpoint, bits: int) -> Iterator[TensorEntry]:
    """Yield what the file will hold, in the order in which a step reads it."""
    c, config = library(), checkpoint.config
    c.bloom_format_size.restype = ctypes.c_uint64
    c.bloom_format_size.argtypes = (ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64)
    shapes = config.shapes()
    matrix = {8: W8, 4: W4, 32: F32}[bits]

    def entry(kind: int, layer: int = 0) -> TensorEntry:
        name, _ = KINDS[kind]
        if name.endswith((".high", ".low", ".norm")):
            rows, cols = shapes["word_embeddings.weight"]
            if name.endswith(".norm"):
                format_, rows, cols = F32, 1, -(-rows // 16) * 16
            else:
                format_ = W4 if name.endswith(".high") else LOW
        else:
            shape = shapes[tensor_name(kind, layer)]
            if len(shape) == 2:
                rows, cols = shape
                format_ = F32 if name == "word_embeddings.weight" else matrix
            else:
                format_, rows, cols = F32, 1, -(-shape[0] // 16) * 16
        size = c.bloom_format_size(format_, rows, cols)
        return TensorEntry(kind=kind, layer=layer, format=format_, rows=rows, cols=cols, size=size)

    of_layers = [kind for kind, (_, prefix) in enumerate(KINDS) if prefix]
    for kind in (_PLAIN,) if bits == 32 else _PLANES:
        yield entry(kind)
    yield from (entry(4), entry(5))
    for layer in range(config.layers):
        for kind in of_layers:
            yield entry(kind, layer)
    yield from (entry(18), entry(19))


class _Reader:
    """Reads a checkpoint's tensors as float32, some rows at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._info = {tensor.name: tensor for tensor in checkpoint.tensors}
        self._pickle: tuple[str, dict[str, Any]] | None = None

    def rows(self, name: str) -> Iterator[Floats]:
        """Yield consecutive rows, up to 4,096 at once; a vector is one row."""
        info = self._info[name]
        if info.file.endswith(".safetensors"):
            yield from self._safetensors(name)
            return
        whole = self._unpickled(info.file, name)
        for first in range(0, len(whole), _ROWS_AT_ONCE):
            part = whole[first : first + _ROWS_AT_ONCE].float().numpy()
            yield np.atleast_2d(part)

    def _safetensors(self, name: str) -> Iterator[Floats]:
        """Map the file and convert what is at hand; safetensors' own numpy has no bfloat16."""
        info = self._info[name]
        path = self._folder / info.file
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            table = json.loads(file.read(size))
        found = table.get(name) or table[f"transformer.{name}"]
        start, end = found["data_offsets"]
        types = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
        if info.dtype not in types:
            raise ModelError(f"{path}: {name} is of type {info.dtype}, which is no weight's")
        kind = np.dtype(types[info.dtype])
        count = (end - start) // kind.itemsize
        data = np.memmap(path, dtype=kind, mode="r", offset=8 + size + start, shape=(count,))
        shape = info.shape if len(info.shape) == 2 else (1, *info.shape)
        whole = data.reshape(shape)
        for first in range(0, len(whole), _ROWS_AT_ONCE):
            part = whole[first : first + _ROWS_AT_ONCE]
            if info.dtype == "BF16":
                yield (part.astype(np.uint32) << 16).view(np.float32)
            else:
                yield part.astype(np.float32)

    def _unpickled(self, file: str, name: str) -> Any:
        import torch

        if self._pickle is None or self._pickle[0] != file:
            # mmap: only the tensors that are used come into memory.
            path = self._folder / file
            try:
                data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # the older, unzipped format cannot be mapped
                data = torch.load(path, map_location="cpu", weights_only=True)
            self._pickle = (file, data)
        data = self._pickle[1]
        return data[name] if name in data else data[f"transformer.{name}"]


def _together(entries: list[TensorEntry]) -> list[list[TensorEntry]]:
    """Group entries by the tensor that they are made of: the embedding becomes three at once."""
    planes = [entry for entry in entries if entry.kind in _PLANES]
    return [planes] * bool(planes) + [[entry] for entry in entries if entry.kind not in _PLANES]


def _write_tensor(
    file: IO[bytes], group: list[TensorEntry], reader: _Reader, name: str
) -> QuantisationError | None:
    sums = (ctypes.c_double * 3)()
    places = [entry.offset for entry in group]
    for rows in reader.rows(name):
        parts: tuple[bytes, ...]
        if len(group) > 1:
            parts = _pack_embedding(rows, sums)
        else:
            if group[0].rows == 1:
                rows = np.pad(rows, ((0, 0), (0, group[0].cols - rows.shape[1])))
            parts = (_pack(group[0].format, rows, sums, name),)
        for index, part in enumerate(parts):
            file.seek(places[index])
            places[index] += file.write(part)
    return _error(name, sums) if group[0].format != F32 else None


def _error(name: str, sums: Any) -> QuantisationError:
    squares, values, largest = sums
    return QuantisationError(name, (squares / values) ** 0.5 if values else 0.0, largest)


def _pack(format_: int, rows: Floats, sums: Any, name: str) -> bytes:
    rows = np.ascontiguousarray(rows, np.float32)
    c, (count, cols) = library(), rows.shape
    out = ctypes.create_string_buffer(c.bloom_format_size(format_, count, cols))
    if c.bloom_pack(format_, count, cols, rows.ctypes.data_as(ctypes.c_void_p), out, sums):
        raise ModelError(f"{name} holds a value that is not finite")
    return out.raw


def _pack_embedding(rows: Floats, sums: Any) -> tuple[bytes, bytes, bytes]:
    rows = np.ascontiguousarray(rows, np.float32)
    c, (count, cols) = library(), rows.shape
    high = ctypes.create_string_buffer(c.bloom_format_size(W4, count, cols))
    low = ctypes.create_string_buffer(c.bloom_format_size(LOW, count, cols))
    norms = ctypes.create_string_buffer(4 * count)
    pointer = rows.ctypes.data_as(ctypes.c_void_p)
    if c.bloom_pack_embedding(count, cols, pointer, high, low, norms, sums):
        raise ModelError("word_embeddings.weight holds a value that is not finite, or huge")
    return high.raw, low.raw, norms.raw
