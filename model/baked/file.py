"""A baked model, `model.bloom`: opened by mapping it, and described.

All checks are those of the C side (`model/native/file.c`), which the engine relies on; the layout
of the header is written down in `model/native/bloom.h`.
"""

import ctypes
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from model.baked.format import SUFFIX, Header, TensorEntry, tensor_name
from model.config import BloomConfig
from model.errors import ModelError
from model.native import check_struct, library
from model.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class BakedTensor:
    """One tensor of a baked model, without its data."""

    name: str
    format: str  # F32, W8, W4, LOW, W5, LOW2
    rows: int
    cols: int
    nbytes: int


def is_baked(path: Path) -> bool:
    """Whether a path names a baked model, by its suffix; a folder is a checkpoint."""
    return path.suffix == SUFFIX and not path.is_dir()


class BakedModel:
    """A mapped `model.bloom`; its contents are used in place.

    The mapping lives as long as this object. Replace a file only by renaming another one over it:
    a file that is truncated while it is mapped ends the process that reads there (SIGBUS).
    """

    def __init__(self, path: Path) -> None:
        """Map a file and check its header; `ModelError` says what is wrong with it."""
        self.path = path
        self._handle: int | None = None
        if not path.exists():
            raise ModelError(f"there is no file {path}; a baked model is made by pibloom bake")
        error = ctypes.create_string_buffer(256)
        handle = _c().bloom_file_open(os.fsencode(path), error, len(error))
        if not handle:
            raise ModelError(f"{path} cannot be used: {error.value.decode(errors='replace')}")
        self._handle = handle
        self.address: int = _c().bloom_file_header(handle)
        # A copy, which may live longer than the mapping.
        self.header = Header.from_buffer_copy(ctypes.string_at(self.address, ctypes.sizeof(Header)))

    def __del__(self) -> None:
        if self._handle:
            _c().bloom_file_close(self._handle)

    @property
    def handle(self) -> int:
        """The C side's pointer to this file."""
        assert self._handle
        return self._handle

    @property
    def bits(self) -> int:
        """Bits of a weight: 8, 4, or 32 where nothing was quantised; 0 for a tokenizer alone."""
        return int(self.header.bits)

    @property
    def n_vocab(self) -> int:
        """How many ids the tokenizer knows: the embedding's rows beyond are padding."""
        return int(self.header.n_vocab)

    @cached_property
    def config(self) -> BloomConfig:
        """The shape of the model; `ModelError` when the file holds a tokenizer alone."""
        header = self.header
        if not self.bits:
            raise ModelError(f"{self.path} holds only a tokenizer, and no weights")
        eos = self.metadata.get("eos_token_ids")
        if not isinstance(eos, list):
            raise ModelError(f"{self.path} cannot be used: its description is damaged")
        return BloomConfig(
            vocab_size=header.vocab_rows,
            hidden_size=header.hidden,
            layers=header.layers,
            heads=header.heads,
            max_context=header.max_context,
            layer_norm_epsilon=header.epsilon,
            eos_token_ids=tuple(eos),
            tie_word_embeddings=not self.has_own_head,
        )

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The description: name, license, end tokens, chat template, sampling defaults, errors."""
        header = self.header
        data = ctypes.string_at(self.address + header.metadata_offset, header.metadata_size)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ModelError(f"{self.path} cannot be used: its description is damaged")
        return found

    @property
    def tokenizer_section(self) -> tuple[int, int]:
        """Address and size of the tokenizer's bytes."""
        header = self.header
        return self.address + header.tokenizer_offset, header.tokenizer_size

    def tokenizer(self) -> Tokenizer:
        """Use its tokenizer, in place; `ModelError` when it is damaged."""
        address, size = self.tokenizer_section
        try:
            return Tokenizer(address, size, self)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from None

    @cached_property
    def has_own_head(self) -> bool:
        """Whether its output head is another matrix than its word embedding."""
        return any(tensor.name.startswith("lm_head.") for tensor in self.tensors)

    @property
    def tensors(self) -> list[BakedTensor]:
        """Every tensor, in the order of the file."""
        table = self.address + ctypes.sizeof(Header)
        found = (TensorEntry * self.header.tensors).from_address(table)
        formats = ("F32", "W8", "W4", "LOW", "W5", "LOW2")
        return [
            BakedTensor(
                tensor_name(each.kind, each.layer),
                formats[each.format],
                each.rows,
                each.cols,
                each.size,
            )
            for each in found
        ]

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return int(self.header.file_size)

    def verify(self) -> None:
        """Read every byte; `ModelError` when the checksum does not fit."""
        digest, header = hashlib.sha256(), self.header
        with self.path.open("rb") as file:
            file.seek(header.header_size)
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.digest() != bytes(header.sha256):
            raise ModelError(f"{self.path} is damaged: its checksum does not fit; bake it again")


@cache
def _c() -> ctypes.CDLL:
    c = library()
    c.bloom_file_open.restype = ctypes.c_void_p
    c.bloom_file_open.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    c.bloom_file_close.restype = None
    c.bloom_file_close.argtypes = (ctypes.c_void_p,)
    c.bloom_file_header.restype = ctypes.c_void_p
    c.bloom_file_header.argtypes = (ctypes.c_void_p,)
    check_struct("bloom_header", Header)
    check_struct("bloom_tensor", TensorEntry)
    return c
