"""LoRA adapters as PEFT saves them, added to the weights of their model while these are read.

W' = W + s B A, where s is alpha / r, or alpha / sqrt(r) with rsLoRA (Hu et al. 2021; Kalajdzievski
2023). With DoRA (Liu et al. 2024) each row of W' is then given the length that the adapter stores.
What an adapter may hold beyond that is refused by its name.
"""

import ctypes
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from model.checkpoint.tensor import TensorInfo
from model.checkpoint.weight_files import tensors_of
from model.checkpoint.weights import TYPES, Floats, Reader
from model.config import BloomConfig
from model.errors import ModelError
from model.files import read_object, shown
from model.native import library

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # PEFT reads the first that is there
_PART = re.compile(
    r"base_model\.model\.(?:transformer\.)?(h\.\d+\..+)\.(lora_A|lora_B|lora_magnitude_vector)"
    r"(?:\.weight)?"
)
_PATTERN = re.compile(r"\^?(\w|\.|\\[.d])+\$?")  # names of modules: no search that takes for ever
# Fields that change nothing of what the weights mean: how the adapter was trained, or for which
# modules there may be matrices, which their names tell.
_NEUTRAL = frozenset(
    [
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "revision",
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "lora_dropout",
        "fan_in_fan_out",
        "layers_to_transform",
        "layers_pattern",
        "megatron_config",
        "megatron_core",
        "eva_config",
        "loftq_config",
        "corda_config",
        "lora_ga_config",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    ]
)
_READ = frozenset(
    [
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "bias",
        "init_lora_weights",
    ]
)
# Ways to begin that leave the model's own weights as they were.
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva", "lora_ga")


@dataclass(frozen=True)
class LowRank:
    """What is added to one matrix [out, in] of a model."""

    a: TensorInfo  # [r, in]
    b: TensorInfo  # [out, r]
    magnitude: TensorInfo | None  # [out], of DoRA: the length of each row
    scale: float

    @property
    def rank(self) -> int:
        """Rows of A and columns of B."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, checked against the shapes of the model that it is for."""

    folder: Path
    base: str  # what PEFT knew its model as: a name on the hub, or a path
    matrices: Mapping[str, LowRank]  # by the name of the tensor that each is added to

    @classmethod
    def open(cls, folder: Path, config: BloomConfig) -> "Adapter":
        """Read an adapter's description and headers; `ModelError` when it cannot be added whole."""
        path = folder / "adapter_config.json"
        if folder.is_file():
            raise ModelError(f"{folder} is a file; an adapter is a folder as PEFT saves it")
        try:
            described = read_object(path)
        except FileNotFoundError:
            missing = path if folder.exists() else folder
            raise ModelError(
                f"{missing} is missing; an adapter is a folder as PEFT saves it"
            ) from None
        _refuse_unsupported(path, described)
        parts = _parts(folder, tensors_of([_weights(folder)]))
        matrices = {
            f"{module}.weight": _low_rank(path, described, module, found, config)
            for module, found in parts.items()
        }
        if not matrices:
            raise ModelError(f"{folder} is an adapter without any matrix")
        return cls(folder, str(described.get("base_model_name_or_path") or ""), matrices)

    @property
    def base_name(self) -> str:
        """The base's name on the hub; of a path, which tells of a person's machine, its end."""
        path = PurePosixPath(self.base)
        return self.base if len(path.parts) == 2 and not path.is_absolute() else path.name

    def check_base(self, name: str) -> None:
        """Refuse a model of another name than the one that the adapter was trained on."""
        trained = Path(self.base.rstrip("/")).name
        if trained and trained.lower() != name.lower():
            raise ModelError(
                f"{self.folder} was trained on {shown(self.base)}, and this is {name}; if they are"
                " the same weights, say so with --any-base"
            )

    def merged(self, name: str, rows: Iterator[Floats], reader: Reader) -> Iterator[Floats]:
        """Add what the adapter has for a tensor to its rows, in place; others pass as they are.

        `reader` is of the adapter's folder; one serves all tensors, as a pickle takes it seconds.
        """
        found = self.matrices.get(name)
        if found is None:
            yield from rows
            return
        a, b = reader.whole(found.a), reader.whole(found.b)
        magnitude = reader.whole(found.magnitude) if found.magnitude else None
        first, rank = 0, found.a.shape[0]
        for some in rows:
            start_b = ctypes.byref(b.values, 4 * first * rank)
            _c().bloom_add_product(
                some.rows, some.cols, rank, start_b, a.values, found.scale, some.values
            )
            if magnitude:
                lengths = ctypes.byref(magnitude.values, 4 * first)
                _c().bloom_scale_rows(some.rows, some.cols, lengths, some.values)
            first += some.rows
            yield replace(some, scales=None)  # what is added is no multiple of them


def _refuse_unsupported(path: Path, described: Mapping[str, Any]) -> None:
    kind = described.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{path}: an adapter of the kind {shown(kind)} is not supported; LORA is")
    beginning = described.get("init_lora_weights")
    if beginning not in _PLAIN_BEGINNINGS:
        raise ModelError(
            f"{path}: init_lora_weights is {shown(beginning)}, which changes the model's own"
            " weights too, and is not supported; convert the adapter to LoRA with PEFT"
            " (path_initial_model_for_weight_conversion)"
        )
    if described.get("bias", "none") != "none":
        raise ModelError(f"{path}: bias is {shown(described['bias'])}; an adapter's own biases are"
                         " not supported")  # fmt: skip
    for name, value in described.items():
        if name not in _NEUTRAL | _READ and value not in (None, False, [], {}):
            raise ModelError(f"{path}: {shown(name)} is {shown(value)}, which is not supported")


def _weights(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder} has neither {' nor '.join(_WEIGHTS)}")


def _parts(folder: Path, tensors: list[TensorInfo]) -> dict[str, dict[str, TensorInfo]]:
    """Group the tensors by the module that they are for."""
    found: dict[str, dict[str, TensorInfo]] = {}
    for tensor in tensors:
        match = _PART.fullmatch(tensor.key)
        if not match:
            raise ModelError(
                f"{folder / tensor.file}: {shown(tensor.key)} is nothing that can be added to a"
                " BLOOM's linear layers; only their lora_A, lora_B and lora_magnitude_vector are"
                " supported"
            )
        if tensor.dtype not in TYPES:
            raise ModelError(
                f"{folder / tensor.file}: {shown(tensor.key)} is of the type {shown(tensor.dtype)};"
                f" weights must be {', '.join(TYPES)}"
            )
        parts = found.setdefault(match[1], {})
        if match[2] in parts:
            raise ModelError(f"{folder / tensor.file}: {shown(tensor.key)} is there twice")
        parts[match[2]] = tensor
    return found


def _low_rank(
    path: Path,
    described: Mapping[str, Any],
    module: str,
    parts: Mapping[str, TensorInfo],
    config: BloomConfig,
) -> LowRank:
    shape = config.shapes().get(f"{module}.weight", ())
    if len(shape) != 2:
        raise ModelError(f"{path.parent}: the model has no linear layer {shown(module)}")
    if "lora_A" not in parts or "lora_B" not in parts:
        raise ModelError(f"{path.parent}: {module} lacks its lora_A or its lora_B")
    a, b, magnitude = parts["lora_A"], parts["lora_B"], parts.get("lora_magnitude_vector")
    rank = a.shape[0] if len(a.shape) == 2 else 0
    fits = rank and a.shape == (rank, shape[1]) and b.shape == (shape[0], rank)
    if not fits or (magnitude and magnitude.shape != (shape[0],)):
        shapes = " and ".join(shown(list(each.shape)) for each in parts.values())
        raise ModelError(
            f"{path.parent}: {module} has matrices of {shapes}, and the model's is {list(shape)};"
            " the adapter is for another model"
        )
    if bool(described.get("use_dora")) != (magnitude is not None):
        raise ModelError(f"{path.parent}: use_dora and {module}'s magnitudes contradict each other")
    asked = _of_pattern(path, described, "rank_pattern", module, described.get("r"))
    if asked != rank:
        raise ModelError(f"{path}: {module} has the rank {rank}, but r is {shown(asked)}")
    alpha = _of_pattern(path, described, "alpha_pattern", module, described.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelError(f"{path}: lora_alpha must be a number, not {shown(alpha)}")
    return LowRank(
        a, b, magnitude, alpha / (math.sqrt(rank) if described.get("use_rslora") else rank)
    )


def _of_pattern(
    path: Path, described: Mapping[str, Any], field: str, module: str, default: Any
) -> Any:
    """Return a module's own value, where a pattern of the field fits the end of its name."""
    table = described.get(field) or {}
    if not isinstance(table, dict):
        raise ModelError(f"{path}: {field} must be an object, not {shown(table)}")
    for pattern, value in table.items():
        if not _PATTERN.fullmatch(pattern):
            raise ModelError(f"{path}: the pattern {shown(pattern)} of {field} is not supported")
        if re.fullmatch(rf"(.*\.)?({pattern})", f"transformer.{module}"):
            return value
    return default


@cache
def _c() -> ctypes.CDLL:
    c, pointer, u64 = library(), ctypes.c_void_p, ctypes.c_uint64
    c.bloom_add_product.argtypes = (u64, u64, u64, pointer, pointer, ctypes.c_float, pointer)
    c.bloom_add_product.restype = None
    c.bloom_scale_rows.argtypes = (u64, u64, pointer, pointer)
    c.bloom_scale_rows.restype = None
    return c
