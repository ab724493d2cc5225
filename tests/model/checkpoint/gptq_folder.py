"""Writes folders as AutoGPTQ and GPTQModel do, from codes, zeros and scales."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BloomConfig as TheirConfig
from transformers import BloomForCausalLM

from model.config import BloomConfig

LINEAR = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
ROWS, LAYERS = 8192, 2


@dataclass(frozen=True)
class Form:
    """What an exporter may choose."""

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    desc_act: bool = False
    checkpoint_format: str | None = "gptq"
    scales: torch.dtype = torch.float16
    with_g_idx: bool = True
    where: str = "config.json"
    file: str = "model.safetensors"
    heads: int = 4
    width: int = 128

    @property
    def settings(self) -> dict[str, Any]:
        found = {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "sym": self.sym,
            "desc_act": self.desc_act,
            "true_sequential": True,
            "damp_percent": 0.01,
            "lm_head": False,
            "pack_dtype": "int32",
            "meta": {"quantizer": ["gptqmodel:5.0.0"], "static_groups": False},
        }
        if self.checkpoint_format:
            found["checkpoint_format"] = self.checkpoint_format
        return found


def packed(codes: Tensor, bits: int) -> Tensor:
    """Pack codes [n, m] along the first dimension: [n / (32 / bits), m], the first one lowest."""
    per_word = 32 // bits
    words = codes.long().reshape(-1, per_word, codes.shape[1])
    shifts = bits * torch.arange(per_word).reshape(1, -1, 1)
    return (words << shifts).sum(1).to(torch.int32)  # wraps around into the sign bit


def quantised(weight: Tensor, form: Form) -> tuple[dict[str, Tensor], Tensor]:
    """Round a matrix to the nearest codes; returns its tensors, and the values that they mean."""
    cols = weight.shape[1]
    size = form.group_size if form.group_size > 0 else cols
    group = torch.arange(cols) // size
    if form.desc_act:
        group = group[torch.randperm(cols)]
    last = 2**form.bits - 1
    scales, zeros = [], []
    for index in range(-(-cols // size)):
        part = weight[:, group == index]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if form.sym:
            high = torch.maximum(high, -low)
            low = -high
        scale = (high - low) / last
        scales.append(scale.to(form.scales))
        half = torch.full_like(scale, 2 ** (form.bits - 1))
        zeros.append((half if form.sym else (-low / scale).round().clamp(1, last)).int())
    scale, zero = torch.stack(scales), torch.stack(zeros)  # [groups, rows]
    of_col, zero_of_col = scale.float()[group].T, zero[group].T
    codes = ((weight / of_col).round() + zero_of_col).clamp(0, last).int()
    offset = 0 if form.checkpoint_format == "gptq_v2" else 1
    parts = {
        "qweight": packed(codes.T, form.bits),
        "qzeros": packed((zero - offset).T, form.bits).T.contiguous(),
        "scales": scale,
    }
    if form.with_g_idx:
        parts["g_idx"] = group.int()
    return parts, of_col * (codes - zero_of_col)


def write(folder: Path, demo: Path, form: Form) -> dict[str, Tensor]:
    """Write a random BLOOM as GPTQ leaves it; returns the weights that it means, in float32."""
    generator = torch.Generator().manual_seed(0)
    TheirConfig(
        vocab_size=ROWS, hidden_size=form.width, n_layer=LAYERS, n_head=form.heads
    ).save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder)
    means: dict[str, Tensor] = {}
    stored: dict[str, Tensor] = {}
    for name, shape in BloomConfig(ROWS, form.width, LAYERS, form.heads).shapes().items():
        weight = 0.1 * torch.randn(shape, generator=generator) + name.endswith("norm.weight")
        module, _, kind = f"transformer.{name}".rpartition(".")
        if kind == "weight" and module.endswith(LINEAR):
            parts, means[f"{module}.{kind}"] = quantised(weight.half().float(), form)
            stored |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
        else:
            stored[f"{module}.{kind}"] = weight.half()
            means[f"{module}.{kind}"] = weight.half().float()
    save(folder / form.file, stored)
    settings = form.settings
    if form.where == "config.json":
        configure(folder, quantization_config=settings)
    else:
        (folder / form.where).write_text(json.dumps(settings))
    return means


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def configure(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def model_of(folder: Path, weights: dict[str, Tensor]) -> BloomForCausalLM:
    """Return transformers' model of these weights."""
    data = json.loads((folder / "config.json").read_text())
    data.pop("quantization_config", None)
    config = TheirConfig(**data)
    return BloomForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    ).eval()
