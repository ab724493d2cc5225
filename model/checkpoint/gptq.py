"""Weights that GPTQ quantised (Frantar et al. 2022), as AutoGPTQ, GPTQModel and optimum save them.

A matrix [rows, cols] is stored as codes, and a scale and a zero of each row and group of columns:
weight = scale (code - zero). Its group is column // group_size, or what `g_idx` says, where the
columns were put in the order of their activations. `native/gptq.c` shows how codes are packed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoint.tensor import Packed, TensorInfo
from model.errors import ModelError
from model.files import read_object, shown

_PART = re.compile(r"(.+)\.(qweight|qzeros|scales|g_idx)")
_NEEDED = ("qweight", "qzeros", "scales")
_WORD = 32  # bits that codes are packed into
_BITS = (2, 4, 8)  # codes of 3 bits lie across words
# Ways to store the zeros, and how much less than a zero is stored.
_FORMATS = {"gptq": 1, "gptq_v2": 0}
# Fields of GPTQModel and AutoGPTQ that change what the tensors mean, unless they are as here.
_PLAIN = {
    "activation": (None,),
    "adapter": (None,),
    "is_marlin_format": (None, False),
    "pack_dtype": (None, "int32"),
    "rotation": (None,),
}
_SCALES = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class GptqSettings:
    """How a folder's weights were quantised, checked."""

    bits: int
    group_size: int | None  # columns; None for whole rows
    by_activations: bool  # columns were ordered by their activations, so g_idx is needed
    zero_offset: int

    @classmethod
    def open(cls, folder: Path, tensors: Sequence[TensorInfo] = ()) -> "GptqSettings | None":
        """Read them from config.json, or from quantize_config.json where tensors are packed.

        None without any; `ModelError` when the weights would mean something that is not known here.
        """
        path = folder / "config.json"
        found = read_object(path).get("quantization_config")
        if found is None:
            path = folder / "quantize_config.json"
            if not any(_PART.fullmatch(tensor.key) for tensor in tensors) or not path.is_file():
                return None
            found = read_object(path)
        if not isinstance(found, dict) or found.get("quant_method", "gptq") != "gptq":
            return None
        try:
            return cls.from_dict(found)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "GptqSettings":
        """Take the fields of a `quantization_config`."""
        bits, size = data.get("bits"), data.get("group_size", -1)
        if type(bits) is not int or bits not in _BITS:
            allowed = ", ".join(map(str, _BITS))
            raise ModelError(f"GPTQ of {shown(bits)} bits is not supported; {allowed} are")
        if type(size) is not int or (size != -1 and size < 1):
            raise ModelError(f"group_size must be -1 or a number of columns, not {shown(size)}")
        by_activations = data.get("desc_act", False)
        if not isinstance(by_activations, bool):
            raise ModelError(f"desc_act must be true or false, not {shown(by_activations)}")
        names = [data[name] for name in ("checkpoint_format", "format") if data.get(name)]
        format_ = names[0] if names else "gptq"
        if (
            not isinstance(format_, str)
            or format_ not in _FORMATS
            or names[1:] not in ([], names[:1])
        ):
            raise ModelError(
                f"checkpoint_format {' and '.join(map(shown, names))} is not supported;"
                f" {' and '.join(_FORMATS)} are"
            )
        for name, plain in _PLAIN.items():
            if (value := data.get(name)) not in plain:
                raise ModelError(f"{name} is not supported, and here it is {shown(value)}")
        _check_dynamic(data.get("dynamic"))
        return cls(bits, None if size == -1 else size, by_activations, _FORMATS[format_])

    def __str__(self) -> str:
        columns = f"groups of {self.group_size}" if self.group_size else "whole rows"
        order = ", columns in the order of their activations" if self.by_activations else ""
        return f"GPTQ, {self.bits} bits, {columns}{order}"

    def joined(self, folder: Path, tensors: list[TensorInfo]) -> list[TensorInfo]:
        """Put one matrix in place of the tensors that stand for it; others stay as they are."""
        plain: list[TensorInfo] = []
        modules: dict[str, dict[str, TensorInfo]] = {}
        for tensor in tensors:
            match = _PART.fullmatch(tensor.key)
            if not match:
                plain.append(tensor)
                continue
            parts = modules.setdefault(match[1], {})
            if match[2] in parts:
                raise ModelError(f"{folder}: {shown(tensor.key)} is stored twice")
            parts[match[2]] = tensor
        if not modules:
            raise ModelError(f"{folder} is said to be quantised by GPTQ, but no qweight is there")
        return plain + [self._matrix(folder, module, parts) for module, parts in modules.items()]

    def _matrix(self, folder: Path, module: str, parts: Mapping[str, TensorInfo]) -> TensorInfo:
        for name in _NEEDED:
            if name not in parts:
                raise ModelError(f"{folder}: {shown(module)} lacks its {name}")
        qweight, g_idx = parts["qweight"], parts.get("g_idx")
        codes = _WORD // self.bits  # of a word
        if len(qweight.shape) != 2 or not all(qweight.shape):
            raise ModelError(f"{folder}: {shown(qweight.key)} is {shown(list(qweight.shape))}")
        rows, cols = qweight.shape[1], qweight.shape[0] * codes
        size = min(self.group_size or cols, cols)
        groups = -(-cols // size)
        expected = {
            "qweight": ((cols // codes, rows), ("I32",)),
            "qzeros": ((groups, -(-rows // codes)), ("I32",)),
            "scales": ((groups, rows), _SCALES),
            "g_idx": ((cols,), ("I32",)),
        }
        for name, part in parts.items():
            shape, types = expected[name]
            if part.shape != shape or part.dtype not in types:
                raise ModelError(
                    f"{folder / part.file}: {shown(part.key)} is {shown(list(part.shape))} of the"
                    f" type {shown(part.dtype)}, but {self} of {rows} rows and {cols} columns has"
                    f" {list(shape)} of {' or '.join(types)}"
                )
        if rows % codes:
            raise ModelError(f"{folder}: {shown(module)} has {rows} rows, which GPTQ cannot pack")
        if self.by_activations and not g_idx:
            raise ModelError(f"{folder}: {shown(module)} lacks its g_idx, and desc_act is true")
        return TensorInfo(
            f"{module}.weight",
            (rows, cols),
            f"GPTQ{self.bits}",
            qweight.file,
            sum(part.nbytes for part in parts.values()),
            key=qweight.key,
            packed=Packed(
                self.bits,
                size,
                self.zero_offset,
                qweight,
                parts["qzeros"],
                parts["scales"],
                g_idx,
            ),
        )


def _check_dynamic(rules: object) -> None:
    """Refuse rules that give modules other bits or groups; those that leave some out are known."""
    if rules is None:
        return
    names = list(rules) if isinstance(rules, dict) else [rules]
    for name in names:
        if not isinstance(name, str) or not name.startswith("-:"):
            raise ModelError(f"dynamic gives {shown(name)} other settings, which is not supported")
