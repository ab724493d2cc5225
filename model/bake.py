"""Baking: a checkpoint folder becomes one file, `model.bloom`.

Tensors stream through: at no time is more than one of them, and a part of its quantised form, in
memory. The file grows under a temporary name and gets its own when it is whole and on disk.
"""

import ctypes
import fcntl
import glob
import hashlib
import json
import math
import mmap
import os
import secrets
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from model.baked import KINDS, MAGIC, VERSION, BakedModel, Header, TensorEntry, tensor_name
from model.chat import ChatSource
from model.checkpoint import PREFIX, Checkpoint, TensorInfo
from model.errors import ModelError
from model.loader import license_of, model_name
from model.native import library
from model.store import PARTIAL, is_baked, remove_abandoned
from model.tokenizer import Tokenizer
from model.vocabulary import compile_vocabulary

Progress = Callable[[str, int, int], None]  # tensor, bytes done, bytes in all

BITS = (8, 4, 32)
F32, W8, W4, LOW = range(4)  # enum bloom_format
_ROWS_AT_ONCE = 4096  # of a tensor that are quantised in one go; a multiple of 16
_PAGE = 4096
_MAP_NORESERVE = 0x4000  # of Linux; Python 3.11 has no name for it
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
    checkpoint.tokenizer()  # refuses one that does not fit the embedding
    tokenizer = compile_vocabulary(checkpoint.folder)
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
        header.max_context, header.bits = config.max_context, bits
        header.epsilon = config.layer_norm_epsilon
        return entries

    _write(output, tokenizer, write, lambda: _metadata(checkpoint, bits, errors), len(entries))
    return errors


def bake_tokenizer_only(source: Path, output: Path) -> None:
    """Write a file that holds the tokenizer and no weights, for the tokenize function.

    It is made of a checkpoint folder, or taken out of a baked file, of which every byte is checked.
    """
    if is_baked(source):
        model = BakedModel(source)
        if output.exists() and output.samefile(source):
            raise ModelError(f"{output} is the model itself; its tokenizer would replace it")
        model.verify()
        tokenizer = ctypes.string_at(*model.tokenizer_section)
        metadata = {key: model.metadata.get(key) for key in ("name", "license")}
    else:
        tokenizer = compile_vocabulary(source)
        metadata = {"name": model_name(source), "license": license_of(source)}
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
    remove_abandoned(output.parent.glob(f"{glob.escape(output.name)}.*{PARTIAL}"))
    try:
        with _partial(output) as (partial, file):
            header = Header(version=VERSION, byte_order=0x01020304, header_size=header_size)
            header.magic[:] = MAGIC
            file.write(bytes(header_size))
            entries = weights(file, header)
            header.tensors = len(entries)
            header.tokenizer_offset, header.tokenizer_size = _align(file, _PAGE), len(tokenizer)
            file.write(tokenizer)
            header.drawable = Tokenizer.from_bytes(tokenizer).size
            described = json.dumps(metadata(), ensure_ascii=False).encode()
            header.metadata_offset, header.metadata_size = _align(file, 64), len(described)
            file.write(described)
            header.file_size = file.tell()
            _seal(file, header, entries)
            BakedModel(partial)  # what could not be opened must not take the name
            partial.replace(output)
        _sync_folder(output.parent)
    except OSError as error:
        raise ModelError(f"{output} cannot be written: {error.strerror or error}") from error


@contextmanager
def _partial(output: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a file beside the output to write to, locked for as long as it is; then delete it.

    A process that is killed leaves it without a lock, and the next bake deletes it.
    """
    with _unwinding_signals():
        partial, file = _create_locked(output)
        try:
            with file:
                yield partial, file
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _create_locked(output: Path) -> tuple[Path, IO[bytes]]:
    while True:
        partial = output.with_name(f"{output.name}.{secrets.token_hex(4)}{PARTIAL}")
        file = partial.open("x+b")
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():
            return partial, file
        file.close()  # another bake took it for abandoned before it was locked


@contextmanager
def _unwinding_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process by way of an exception, so that it leaves no file."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; what it leaves is deleted by the next bake
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    taken = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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
    except OSError:
        pass  # some network file systems know no such thing; the file itself is safe
    finally:
        os.close(descriptor)


def _align(file: IO[bytes], step: int) -> int:
    file.write(bytes(-file.tell() % step))
    return file.tell()


def _metadata(checkpoint: Checkpoint, bits: int, errors: list[QuantisationError]) -> dict[str, Any]:
    folder = checkpoint.folder
    chat = ChatSource.read(folder)
    return {
        "name": model_name(folder),
        "license": license_of(folder),
        "parameters": checkpoint.parameters,
        "bits": bits,
        "chat_template": chat.template,
        "chat_tokens": dict(chat.tokens),
        "chat_problem": chat.problem,
        "eos_token_ids": checkpoint.config.eos_token_ids,
        "sampling": asdict(checkpoint.generation.sampling),
        "notes": checkpoint.generation.notes,
        "errors": [asdict(error) for error in errors],
    }


def _entries(checkpoint: Checkpoint, bits: int) -> Iterator[TensorEntry]:
    """Yield what the file will hold, in the order in which a step reads it."""
    config = checkpoint.config
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
        size = _c().bloom_format_size(format_, rows, cols)
        return TensorEntry(kind=kind, layer=layer, format=format_, rows=rows, cols=cols, size=size)

    of_layers = [kind for kind, (_, prefix) in enumerate(KINDS) if prefix]
    for kind in (_PLAIN,) if bits == 32 else _PLANES:
        yield entry(kind)
    yield from (entry(4), entry(5))
    for layer in range(config.layers):
        for kind in of_layers:
            yield entry(kind, layer)
    yield from (entry(18), entry(19))


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


class _Reader:
    """Reads a checkpoint's tensors as float32, some rows at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._info = {tensor.name: tensor for tensor in checkpoint.tensors}
        self._pickle: tuple[str, dict[str, Any]] | None = None

    def rows(self, name: str) -> Iterator[Floats]:
        """Yield consecutive rows, up to 4,096 at once; a vector is one row."""
        info = self._info[name]
        shape = info.shape if len(info.shape) == 2 else (1, *info.shape)
        read = self._mapped if info.file.endswith(".safetensors") else self._unpickled
        with read(info) as (address, width):
            for first in range(0, shape[0], _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, shape[0] - first)
                rows = Floats.empty(count, shape[1])
                start = address + first * shape[1] * width
                if _c().bloom_widen(info.dtype.encode(), start, count * shape[1], rows.values):
                    raise ModelError(f"{info.file}: {name} is of type {info.dtype}, no weight's")
                yield rows

    @contextmanager
    def _mapped(self, info: TensorInfo) -> Iterator[tuple[int, int]]:
        """Give the address of a tensor's data in a safetensors file, and the bytes of a number."""
        with (self._folder / info.file).open("rb") as file:
            # Writable, as ctypes asks, though nothing is written: no memory need be there for it.
            flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
            data = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        view = (ctypes.c_char * len(data)).from_buffer(data)
        try:
            yield ctypes.addressof(view) + info.offset, info.nbytes // math.prod(info.shape)
        finally:
            del view
            data.close()

    @contextmanager
    def _unpickled(self, info: TensorInfo) -> Iterator[tuple[int, int]]:
        """Give the address of a tensor's data in a `.bin`, and the bytes of a number."""
        import torch

        if self._pickle is None or self._pickle[0] != info.file:
            path = str(self._folder / info.file)
            try:  # mapped, so that only the tensors that are used come into memory
                data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # the older format, which was no archive
                data = torch.load(path, map_location="cpu", weights_only=True)
            self._pickle = (info.file, data)
        data = self._pickle[1]
        tensor = data[info.name] if info.name in data else data[PREFIX + info.name]
        tensor = tensor.contiguous()
        yield tensor.data_ptr(), tensor.element_size()


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
                rows = rows.widened(group[0].cols)
            parts = (_pack(group[0].format, rows, sums, name),)
        for index, part in enumerate(parts):
            file.seek(places[index])
            places[index] += file.write(part)
    return _error(name, sums) if group[0].format != F32 else None


def _error(name: str, sums: Any) -> QuantisationError:
    squares, values, largest = sums
    return QuantisationError(name, (squares / values) ** 0.5 if values else 0.0, largest)


def _pack(format_: int, rows: Floats, sums: Any, name: str) -> bytes:
    out = ctypes.create_string_buffer(_c().bloom_format_size(format_, rows.rows, rows.cols))
    if _c().bloom_pack(format_, rows.rows, rows.cols, rows.values, out, sums):
        raise ModelError(f"{name} holds a value that is not finite")
    return out.raw


def _pack_embedding(rows: Floats, sums: Any) -> tuple[bytes, bytes, bytes]:
    high = ctypes.create_string_buffer(_c().bloom_format_size(W4, rows.rows, rows.cols))
    low = ctypes.create_string_buffer(_c().bloom_format_size(LOW, rows.rows, rows.cols))
    norms = ctypes.create_string_buffer(4 * rows.rows)
    if _c().bloom_pack_embedding(rows.rows, rows.cols, rows.values, high, low, norms, sums):
        raise ModelError("word_embeddings.weight holds a value that is not finite, or huge")
    return high.raw, low.raw, norms.raw


@cache
def _c() -> ctypes.CDLL:
    c, pointer, u32 = library(), ctypes.c_void_p, ctypes.c_uint32
    c.bloom_format_size.restype = ctypes.c_uint64
    c.bloom_format_size.argtypes = (u32, ctypes.c_uint64, ctypes.c_uint64)
    c.bloom_widen.argtypes = (ctypes.c_char_p, pointer, ctypes.c_uint64, pointer)
    c.bloom_pack.argtypes = (u32, u32, u32, pointer, pointer, pointer)
    c.bloom_pack_embedding.argtypes = (u32, u32, pointer, pointer, pointer, pointer, pointer)
    return c
