"""A checkpoint's tensor as its file describes it."""

from collections.abc import Sequence
from dataclasses import dataclass

# Bits of a number, by the name that safetensors gives its type.
DTYPE_BITS = {
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


@dataclass(frozen=True)
class Packed:
    """The tensors that stand for one matrix, where GPTQ quantised it."""

    bits: int  # of a code
    group_size: int  # columns that share a scale, unless `g_idx` tells otherwise
    zero_offset: int  # by how much each zero is stored less
    qweight: "TensorInfo"
    qzeros: "TensorInfo"
    scales: "TensorInfo"
    g_idx: "TensorInfo | None"  # the group of each column


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint, without its data."""

    name: str  # without the prefix `transformer.`
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: F32, F16, BF16 …
    file: str
    nbytes: int
    offset: int = 0  # of its bytes in a safetensors file
    key: str = ""  # its name in the file
    storage: str = ""  # equal for two tensors of a pickle that share their data
    kept: Sequence[int] | None = None  # the rows that are read, in order; None: all
    packed: Packed | None = None  # what it is made of, where it is no tensor of the file itself
