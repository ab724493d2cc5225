"""Baking: a checkpoint folder becomes one file, `model.bloom`.

Tensors stream through: at no time is more than one of them, and a part of its quantised form, in
memory. The file grows under a temporary name and gets its own when it is whole and on disk.
"""

import ctypes
import glob
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Protocol

from model.baked.card import AdapterCard, CalibrationCard, CutCard, ModelCard
from model.baked.file import BakedModel, is_baked
from model.baked.format import KINDS, MAGIC, VERSION, Header, PackStats, TensorEntry, tensor_name
from model.baked.partial import PARTIAL, partial_file, remove_abandoned
from model.baked.progress import BakeProgress, no_progress
from model.baked.source import card_of, model_card
from model.checkpoint.adapter import Adapter
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Floats, Reader
from model.errors import ModelError
from model.names import folder_name
from model.native import check_struct, library
from model.text.chat import ChatSource
from model.text.tokenizer import Tokenizer
from model.version import version
from model.vocabulary.cut import VocabularyCut
from model.vocabulary.report import Sizes

BITS = (8, 4, 32)
F32, W8, W4, LOW, W5, LOW2 = range(6)  # enum bloom_format
_PAGE, _CACHE_LINE = 4096, 64  # bytes
_NOT_FINITE, _TOO_LARGE = -1, -2  # enum bloom_value
# How much scales that fp16 cannot keep may cost, relative to the root of the mean square.
_MOST_LOST, _MOST_LOST_OF_ROW = 0.01, 0.1
_PLANES = (".high", ".low", ".norm")  # ends of the names of what a matrix of two planes becomes
# The kinds of the word embedding and the output head: as planes, and as floats.
_EMBEDDING, _EMBEDDING_F32, _HEAD, _HEAD_F32 = (0, 1, 2), 3, (20, 21, 22), 23


@dataclass(frozen=True)
class Signature:
    """Who baked a file and when, where it is to say so: the same input gives the same bytes."""

    by: str | None = None
    on: str | None = None  # a date as ISO 8601 has it


UNSIGNED = Signature()


@dataclass(frozen=True)
class QuantisationError:
    """What rounding cost one tensor."""

    name: str
    relative: float  # root of the mean squared error, over that of the values
    largest: float  # of a single weight
    is_second: bool = False  # the checkpoint's values had been rounded before


class Calibrated(Protocol):
    """Matrices that were rounded already, by what that does to their outputs."""

    @property
    def card(self) -> CalibrationCard:
        """What the file says of it."""

    @property
    def errors(self) -> Mapping[str, QuantisationError]:
        """What rounding cost each of them, by its name."""

    def rows(self, name: str) -> Iterator[Floats] | None:
        """Yield the rows of one, whole multiples of their scales; None for any other tensor."""


def bake(
    checkpoint: Checkpoint,
    output: Path,
    *,
    bits: int = 8,
    adapter: Adapter | None = None,
    chat: ChatSource | None = None,
    signature: Signature = UNSIGNED,
    calibrated: Calibrated | None = None,
    progress: BakeProgress = no_progress,
) -> list[QuantisationError]:
    """Write a model's file, with an adapter merged into it; returns each quantised tensor's error.

    `bits` is 8, or 4 for a mixture (see `matrix_format`; the word embedding and the output head
    have 6 then), or 32 for none at all, which serves to compare engines. `chat` replaces the chat
    template of the checkpoint. Matrices that are `calibrated` are written as they are there, with
    the adapter merged already. `ModelError` when the output cannot be written, or a weight is not
    finite, or too large or too small to be kept.
    """
    if bits not in BITS:
        raise ModelError(f"bits must be one of {', '.join(map(str, BITS))}, not {bits}")
    tokenizer = checkpoint.tokenizer()  # refuses one that does not fit the embedding
    config, entries = checkpoint.config, list(_entries(checkpoint, bits, adapter))
    header = _new_header(len(entries))
    header.vocab_rows, header.hidden = config.vocab_size, config.hidden_size
    header.layers, header.heads = config.layers, config.heads
    header.max_context, header.bits = config.max_context, bits
    header.epsilon = config.layer_norm_epsilon
    end = _place(entries, header.header_size)
    total = sum(entry.size for entry in entries)
    with _new_file(output) as file:
        file.truncate(end)
        errors = _write_tensors(file, entries, checkpoint, adapter, calibrated, progress)
        progress("", total, total)
        file.seek(end)
        card = _signed(_card_with(checkpoint, adapter, calibrated), signature)
        _finish(file, header, entries, tokenizer, _metadata(checkpoint, bits, card, chat, errors))
    return errors


def planned_sizes(checkpoint: Checkpoint, bits: int, adapter: Adapter | None = None) -> Sizes:
    """Return how many bytes a bake will write, but for the description, and a token will read."""
    entries = list(_entries(checkpoint, bits, adapter))
    end = _place(entries, _new_header(len(entries)).header_size)
    # Of a matrix of two planes, a token reads the upper one; of an embedding beside a head, a row.
    skipped = ("word_embeddings.",) if checkpoint.has_own_head else ()
    read = [
        entry.size
        for entry in entries
        if not (name := tensor_name(entry.kind, entry.layer)).endswith(".low")
        and not name.startswith(skipped)
    ]
    return Sizes(end + len(checkpoint.tokenizer().compiled), sum(read))


def check_weights(checkpoint: Checkpoint, adapter: Adapter | None = None) -> None:
    """Read and quantise every weight as a bake does, and write nothing; `ModelError` as there."""
    with open(os.devnull, "wb") as nowhere:
        _write_tensors(nowhere, list(_entries(checkpoint, BITS[0], adapter)), checkpoint, adapter)


def bake_tokenizer_only(
    source: Path,
    output: Path,
    signature: Signature = UNSIGNED,
    cut: VocabularyCut | None = None,
) -> None:
    """Write a file that holds the tokenizer and no weights, for the tokenize function.

    It is made of a checkpoint folder, or taken out of a baked file, of which every byte is checked,
    and whose card it keeps, less what concerns the weights and the chat. With `cut`, it is the
    tokenizer that is left of a folder's.
    `ModelError` when the source cannot be used, or the output not be written.
    """
    if is_baked(source):
        model = BakedModel(source)
        if output.exists() and output.samefile(source):
            raise ModelError(f"{output} is the model itself; its tokenizer would replace it")
        model.verify()
        tokenizer = model.tokenizer()
        card = replace(card_of(model), source=None, calibration=None, chat_origin=None)
    else:
        tokenizer = cut.tokenizer if cut else Tokenizer.open(source)
        card = replace(model_card(source), cut=_cut_card(cut))
        card = _signed(card, signature)
    header = _new_header(0)
    with _new_file(output) as file:
        file.seek(header.header_size)
        _finish(file, header, [], tokenizer, card.as_description())


def _new_header(tensors: int) -> Header:
    size = _round_up(ctypes.sizeof(Header) + tensors * ctypes.sizeof(TensorEntry), _PAGE)
    header = Header(version=VERSION, byte_order=0x01020304, header_size=size, tensors=tensors)
    header.magic[:] = MAGIC
    return header


def _place(entries: list[TensorEntry], start: int) -> int:
    """Set where in the file each tensor begins, from `start` on; returns where the last one ends.

    Tensors of a page or more begin at a page, others at a cache line of 64 bytes.
    """
    end = start
    for entry in entries:
        entry.offset = _round_up(end, _PAGE if entry.size >= _PAGE else _CACHE_LINE)
        end = entry.offset + entry.size
    return end


@contextmanager
def _new_file(output: Path) -> Iterator[IO[bytes]]:
    """Open a file to write a baked model to, which gets its name when the block ends well."""
    remove_abandoned(output.parent.glob(f"{glob.escape(output.name)}.*{PARTIAL}"))
    try:
        with partial_file(output) as (partial, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            BakedModel(partial)  # what could not be opened must not take the name
            partial.replace(output)
        _sync_folder(output.parent)
    except OSError as error:
        raise ModelError(f"{output} cannot be written: {error.strerror or error}") from error


def _finish(
    file: IO[bytes],
    header: Header,
    entries: list[TensorEntry],
    tokenizer: Tokenizer,
    metadata: dict[str, Any],
) -> None:
    """Write the tokenizer and the description behind the tensors, and the header before them."""
    description = json.dumps(metadata, ensure_ascii=False).encode()
    header.n_vocab = tokenizer.size
    header.tokenizer_offset = _append(file, tokenizer.compiled, _PAGE)
    header.tokenizer_size = len(tokenizer.compiled)
    header.metadata_offset = _append(file, description, _CACHE_LINE)
    header.metadata_size = len(description)
    header.file_size = file.tell()
    header.sha256[:] = _sha256_from(file, header.header_size)
    header.header_crc = zlib.crc32(_header_bytes(header, entries))  # taken while this field is 0
    file.seek(0)
    file.write(_header_bytes(header, entries))


def _append(file: IO[bytes], data: bytes, alignment: int) -> int:
    """Write data at the next multiple of `alignment`; returns where that is."""
    file.write(bytes(-file.tell() % alignment))
    offset = file.tell()
    file.write(data)
    return offset


def _sha256_from(file: IO[bytes], start: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(start)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


def _header_bytes(header: Header, entries: list[TensorEntry]) -> bytes:
    return (bytes(header) + b"".join(map(bytes, entries))).ljust(header.header_size, b"\0")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems know no such thing; the file itself is safe
    finally:
        os.close(descriptor)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def checkpoint_card(checkpoint: Checkpoint) -> ModelCard:
    """Return what a checkpoint folder tells of its model."""
    types = " and ".join(sorted({tensor.dtype for tensor in checkpoint.tensors}))
    if checkpoint.gptq:
        types = str(checkpoint.gptq)
    files = {Path(tensor.file).suffix for tensor in checkpoint.tensors}
    source = f"{types} in {'safetensors' if files == {'.safetensors'} else '.bin files'}"
    cut = _cut_card(checkpoint.cut)
    return replace(model_card(checkpoint.folder), source=source, cut=cut)


def _cut_card(cut: VocabularyCut | None) -> CutCard | None:
    if cut is None:
        return None
    return CutCard(kept=list(cut.named), entries_before=cut.former.size, entries_after=len(cut.ids))


def _card_with(
    checkpoint: Checkpoint, adapter: Adapter | None, calibrated: Calibrated | None
) -> ModelCard:
    card = replace(checkpoint_card(checkpoint), calibration=calibrated.card if calibrated else None)
    if adapter is None:
        return card
    name, rank = folder_name(adapter.folder), max(each.rank for each in adapter.matrices.values())
    merged = AdapterCard(name=name, base=adapter.base_name or None, rank=rank)
    return replace(card, name=f"{card.name}+{name}", adapter=merged)


def _signed(card: ModelCard, signature: Signature) -> ModelCard:
    card = replace(card, baked_with=version(), baked_by=signature.by, baked_on=signature.on)
    return ModelCard.read(card.as_description())  # as it will be read, with its bounds


def _metadata(
    checkpoint: Checkpoint,
    bits: int,
    card: ModelCard,
    chat: ChatSource | None,
    errors: list[QuantisationError],
) -> dict[str, Any]:
    chat = chat or ChatSource.read(checkpoint.folder)
    return card.as_description() | {
        "parameters": checkpoint.parameters,
        "bits": bits,
        "chat_template": chat.template,
        "chat_tokens": dict(chat.tokens),
        "chat_problem": chat.problem,
        "chat_origin": chat.origin,
        "eos_token_ids": checkpoint.config.eos_token_ids,
        "sampling": asdict(checkpoint.generation.sampling),
        "notes": checkpoint.generation.notes,
        "errors": [asdict(error) for error in errors],
    }


def _entries(
    checkpoint: Checkpoint, bits: int, adapter: Adapter | None = None
) -> Iterator[TensorEntry]:
    """Yield what the file will hold, in the order in which a step reads it."""
    changed = adapter.matrices.keys() if adapter else ()
    config = checkpoint.config
    shapes = checkpoint.shapes
    low = LOW2 if bits == 4 else LOW

    def entry(kind: int, layer: int = 0) -> TensorEntry:
        name, _ = KINDS[kind]
        shape = shapes[_source(kind, layer)]
        if name.endswith(_PLANES):
            rows, cols = shape
            if name.endswith(".norm"):
                format_, rows, cols = F32, 1, -(-rows // 16) * 16
            else:
                format_ = W4 if name.endswith(".high") else low
        else:
            if len(shape) == 2:
                rows, cols = shape
                source = tensor_name(kind, layer)
                kept = None if source in changed else checkpoint.kept_codes.get(source)
                format_ = matrix_format(name, bits, kept)
            else:
                format_, rows, cols = F32, 1, -(-shape[0] // 16) * 16
        size = _c().bloom_format_size(format_, rows, cols)
        return TensorEntry(kind=kind, layer=layer, format=format_, rows=rows, cols=cols, size=size)

    of_layers = [kind for kind, (_, prefix) in enumerate(KINDS) if prefix]
    for kind in (_EMBEDDING_F32,) if bits == 32 else _EMBEDDING:
        yield entry(kind)
    yield from (entry(4), entry(5))
    for layer in range(config.layers):
        for kind in of_layers:
            yield entry(kind, layer)
    yield from (entry(18), entry(19))
    if checkpoint.has_own_head:
        for kind in (_HEAD_F32,) if bits == 32 else _HEAD:
            yield entry(kind)


def matrix_format(name: str, bits: int, kept: int | None = None) -> int:
    """Return the format of a matrix of the layers; `kept` are the bits that keep its every value.

    Of the four matrices of a layer, rounding the last one of the MLP costs the least by far
    (docs/architecture.md has the figures); at 4 bits, the others have 5.
    """
    if kept and bits != 32:
        return {4: W4, 5: W5}[kept]  # more bits would hold the same
    if bits == 4:
        return W4 if name.startswith("mlp.dense_4h_to_h") else W5
    return W8 if bits == 8 else F32


def _source(kind: int, layer: int) -> str:
    """Return the name of the checkpoint's tensor that a tensor of the file is made of."""
    name = tensor_name(kind, layer)
    return name.rpartition(".")[0] + ".weight" if name.endswith(_PLANES) else name


def _write_tensors(
    file: IO[bytes],
    entries: list[TensorEntry],
    checkpoint: Checkpoint,
    adapter: Adapter | None = None,
    calibrated: Calibrated | None = None,
    progress: BakeProgress = no_progress,
) -> list[QuantisationError]:
    """Write every tensor where its entry says."""
    total, done = sum(entry.size for entry in entries), 0
    infos = {tensor.name: tensor for tensor in checkpoint.tensors}
    errors: list[QuantisationError] = []
    with Reader(checkpoint.folder) as reader, Reader((adapter or checkpoint).folder) as added:
        for name, together in groupby(entries, lambda entry: _source(entry.kind, entry.layer)):
            group = list(together)  # a matrix of two planes becomes three tensors at once
            progress(name, done, total)
            rows = (calibrated and calibrated.rows(name)) or reader.rows(infos[name])
            if adapter and not (calibrated and name in calibrated.errors):
                rows = adapter.merged(name, rows, added)
            if error := _write_tensor(file, group, rows, name):
                error = replace(error, is_second=infos[name].packed is not None)
                errors.append(calibrated.errors.get(name, error) if calibrated else error)
            done += sum(entry.size for entry in group)
    return errors


def _write_tensor(
    file: IO[bytes], group: list[TensorEntry], tensor: Iterator[Floats], name: str
) -> QuantisationError | None:
    stats = PackStats()
    places = [entry.offset for entry in group]
    for rows in tensor:
        parts: tuple[bytes, ...]
        if len(group) > 1:
            low = next(entry.format for entry in group if entry.format in (LOW, LOW2))
            parts = _pack_planes(low, rows, stats, name)
        else:
            if group[0].rows == 1:
                rows = rows.widened(group[0].cols)
            parts = (_pack(group[0].format, rows, stats, name),)
        for index, part in enumerate(parts):
            file.seek(places[index])
            places[index] += file.write(part)
    return _error(name, stats) if group[0].format != F32 else None


def _error(name: str, stats: PackStats) -> QuantisationError:
    lost, squares, lost_of_row = stats.lost, stats.squares, stats.lost_of_row
    if lost > _MOST_LOST**2 * squares or lost_of_row > _MOST_LOST_OF_ROW**2:
        raise ModelError(
            f"{name} holds weights that are too small to be quantised: {_share(lost, squares)}"
            f" would be lost (at most {_MOST_LOST:.0%}), and {_share(lost_of_row, 1)} of a row"
            f" (at most {_MOST_LOST_OF_ROW:.0%})"
        )
    relative = (stats.squared_error / squares) ** 0.5 if squares else 0.0
    return QuantisationError(name, relative, stats.largest_error)


def _share(lost: float, values: float) -> str:
    return f"{(lost / values) ** 0.5:.1%}"


def _pack(format_: int, rows: Floats, stats: PackStats, name: str) -> bytes:
    out = ctypes.create_string_buffer(_c().bloom_format_size(format_, rows.rows, rows.cols))
    _check(
        _c().bloom_pack(format_, rows.rows, rows.cols, rows.values, rows.scales, out, stats), name
    )
    return out.raw


def _pack_planes(
    low_format: int, rows: Floats, stats: PackStats, name: str
) -> tuple[bytes, bytes, bytes]:
    high = ctypes.create_string_buffer(_c().bloom_format_size(W4, rows.rows, rows.cols))
    low = ctypes.create_string_buffer(_c().bloom_format_size(low_format, rows.rows, rows.cols))
    norms = ctypes.create_string_buffer(4 * rows.rows)
    code = _c().bloom_pack_embedding(
        low_format, rows.rows, rows.cols, rows.values, high, low, norms, stats
    )
    _check(code, name)
    return high.raw, low.raw, norms.raw


def _check(code: int, name: str) -> None:
    """Raise what a packing function refused, by its `enum bloom_value`."""
    if code == _NOT_FINITE:
        raise ModelError(f"{name} holds a value that is not finite; the checkpoint is damaged")
    if code == _TOO_LARGE:
        raise ModelError(
            f"{name} holds a value that is too large for a weight; the checkpoint is damaged, or it"
            " is of another kind of model"
        )


@cache
def _c() -> ctypes.CDLL:
    c, pointer, u32 = library(), ctypes.c_void_p, ctypes.c_uint32
    c.bloom_format_size.restype = ctypes.c_uint64
    c.bloom_format_size.argtypes = (u32, ctypes.c_uint64, ctypes.c_uint64)
    stats = ctypes.POINTER(PackStats)
    c.bloom_pack.argtypes = (u32, u32, u32, pointer, pointer, pointer, stats)
    c.bloom_pack_embedding.argtypes = (u32, u32, u32, pointer, pointer, pointer, pointer, stats)
    check_struct("bloom_pack_stats", PackStats)
    return c
