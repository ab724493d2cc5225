"""The shape of a BLOOM model, read from `config.json` and checked once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError

# Older configurations spell some fields otherwise.
_ALIASES = {
    "hidden_size": ("hidden_size", "n_embed"),
    "layers": ("n_layer", "num_hidden_layers"),
    "heads": ("n_head", "num_attention_heads"),
}
# No BLOOM comes near these; native/file.c has the same ones.
_LIMITS = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 16,
    "layers": 1024,
    "heads": 1 << 16,
    "max_context": 1 << 20,
}
_DEFAULT_CONTEXT = 2048  # what the published models were trained at; ALiBi has no hard limit


@dataclass(frozen=True)
class BloomConfig:
    """The numbers that an engine needs of a BLOOM; `ModelError` when they do not fit together."""

    vocab_size: int  # rows of the word embedding; the tokenizer may have fewer entries
    hidden_size: int
    layers: int
    heads: int
    max_context: int = _DEFAULT_CONTEXT  # tokens, prompt and reply together
    layer_norm_epsilon: float = 1e-5
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} must be a positive whole number, not {value!r}")
            if value > limit:
                raise ModelError(f"{name} is at most {limit} in any BLOOM, not {value}")
        if self.hidden_size % self.heads:
            raise ModelError(
                f"hidden_size {self.hidden_size} cannot be divided among {self.heads} heads"
            )
        if self.head_size > 1024:
            raise ModelError(f"heads of {self.head_size} numbers are wider than in any BLOOM")
        eos, epsilon = self.eos_token_id, self.layer_norm_epsilon
        if not isinstance(eos, int) or not 0 <= eos < self.vocab_size:
            raise ModelError(f"eos_token_id must be an id of the vocabulary, not {eos!r}")
        if not isinstance(epsilon, float | int) or not 1e-30 < epsilon < 1:
            raise ModelError(f"layer_norm_epsilon must be a small number, not {epsilon!r}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads

    @classmethod
    def open(cls, path: Path) -> "BloomConfig":
        """Read a `config.json`; `ModelError` when it is missing, damaged or of another model."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(
                f"{path} is missing; a checkpoint folder needs a config.json"
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as JSON: {error}") from None
        try:
            return cls.from_dict(data)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BloomConfig":
        """Take the fields of a parsed `config.json`, under their newer or older names."""
        if not isinstance(data, Mapping):
            raise ModelError("expected a JSON object")
        if data.get("model_type") != "bloom":
            raise ModelError(
                f"expected a BLOOM (model_type 'bloom'), found {data.get('model_type')!r}"
            )
        if data.get("apply_residual_connection_post_layernorm"):
            raise ModelError("apply_residual_connection_post_layernorm is not supported")
        found = {}
        for field, names in _ALIASES.items():
            values = [data[name] for name in names if name in data]
            if not values:
                raise ModelError(f"the field {names[0]} is missing")
            found[field] = values[0]
        if "vocab_size" not in data:
            raise ModelError("the field vocab_size is missing")
        return cls(
            vocab_size=data["vocab_size"],
            max_context=data.get("seq_length", _DEFAULT_CONTEXT),
            layer_norm_epsilon=data.get("layer_norm_epsilon", 1e-5),
            eos_token_id=data.get("eos_token_id", 2),
            **found,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight, without the prefix `transformer.`."""
        width, inner = self.hidden_size, 4 * self.hidden_size
        norms = ["word_embeddings_layernorm", "ln_f"]
        shapes: dict[str, tuple[int, ...]] = {"word_embeddings.weight": (self.vocab_size, width)}
        for layer in range(self.layers):
            block = f"h.{layer}."
            norms += [block + "input_layernorm", block + "post_attention_layernorm"]
            for name, rows, columns in (
                ("self_attention.query_key_value", 3 * width, width),
                ("self_attention.dense", width, width),
                ("mlp.dense_h_to_4h", inner, width),
                ("mlp.dense_4h_to_h", width, inner),
            ):
                shapes[f"{block}{name}.weight"] = (rows, columns)
                shapes[f"{block}{name}.bias"] = (rows,)
        for norm in norms:
            shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (width,)
        return shapes
