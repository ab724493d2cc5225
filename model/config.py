"""The shape of a BLOOM model, read from `config.json` and checked once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.files import read_json, shortened, shown

# Names of a field: the later one wins where both are given, as in transformers. A null `n_embed`
# is as none; any other null is refused.
_ALIASES = {
    "hidden_size": ("hidden_size", "n_embed"),
    "layers": ("n_layer", "num_hidden_layers"),
    "heads": ("n_head", "num_attention_heads"),
}
ARCHITECTURES = ("BloomForCausalLM", "BloomModel")
# Fields that make transformers load or compute something else, unless they are as given here.
_UNSUPPORTED = {
    "apply_residual_connection_post_layernorm": False,
    "compression_config": None,
    "configuration_files": None,
    "fusion_config": None,
    "is_encoder_decoder": False,
    "per_layer_config": None,
    "sliding_window": None,
    "transformers_weights": None,
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
    """The shape of a BLOOM, and what ends its replies; `ModelError` when it is not consistent."""

    vocab_size: int  # rows of the word embedding; the tokenizer may have fewer entries
    hidden_size: int
    layers: int
    heads: int
    max_context: int = _DEFAULT_CONTEXT  # tokens, prompt and reply together
    layer_norm_epsilon: float = 1e-5
    eos_token_ids: tuple[int, ...] = (2,)  # any of them ends a reply
    tie_word_embeddings: bool = True  # the output head is the word embedding

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} must be a positive whole number, not {shown(value)}")
            if value > limit:
                raise ModelError(f"{name} is at most {limit} in any BLOOM, not {shown(value)}")
        if self.hidden_size % self.heads:
            raise ModelError(
                f"hidden_size {self.hidden_size} cannot be divided among {self.heads} heads"
            )
        if self.head_size > 1024:
            raise ModelError(f"heads of {self.head_size} numbers are wider than in any BLOOM")
        for eos in self.eos_token_ids:
            if type(eos) is not int or not 0 <= eos < self.vocab_size:
                raise ModelError(f"eos_token_id must be an id of the vocabulary, not {shown(eos)}")
        epsilon = self.layer_norm_epsilon
        if not isinstance(epsilon, float) or not 1e-30 < epsilon < 1:
            raise ModelError(f"layer_norm_epsilon must be a small number, not {shown(epsilon)}")
        if not isinstance(self.tie_word_embeddings, bool):
            raise ModelError(
                f"tie_word_embeddings must be true or false, not {shown(self.tie_word_embeddings)}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads

    @classmethod
    def open(cls, path: Path) -> "BloomConfig":
        """Read a `config.json`; `ModelError` when it is missing, damaged or of another model.

        Its `eos_token_id` is not read: `GenerationConfig` reads what ends a reply.
        """
        try:
            data = read_json(path)
        except FileNotFoundError:
            raise ModelError(
                f"{path} is missing; a checkpoint folder needs a config.json"
            ) from None
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
                f"expected a BLOOM (model_type 'bloom'), found {shown(data.get('model_type'))}"
            )
        _check_supported(data)
        found = {}
        for field, names in _ALIASES.items():
            values = [
                data[name]
                for name in names
                if name in data and (name != "n_embed" or data[name] is not None)
            ]
            if not values:
                raise ModelError(f"the field {names[0]} is missing")
            found[field] = values[-1]
        if "vocab_size" not in data:
            raise ModelError("the field vocab_size is missing")
        context = data.get("seq_length")
        return cls(
            vocab_size=data["vocab_size"],
            max_context=_DEFAULT_CONTEXT if context is None else context,
            layer_norm_epsilon=data.get("layer_norm_epsilon", 1e-5),
            eos_token_ids=(),
            tie_word_embeddings=data.get("tie_word_embeddings", True),
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


def _check_supported(data: Mapping[str, Any]) -> None:
    architectures = data.get("architectures")
    if architectures is not None and not isinstance(architectures, list):
        raise ModelError(f"architectures must be a list of names, not {shown(architectures)}")
    for architecture in architectures or ():
        if architecture not in ARCHITECTURES:
            raise ModelError(
                f"the architecture {shown(architecture)} is not supported; only a language model"
                f" is served: {' or '.join(ARCHITECTURES)}"
            )
    quantised = data.get("quantization_config")
    if quantised is not None and _method(quantised) != "gptq":  # checkpoint/gptq.py reads it
        raise ModelError(
            f"quantization_config ({_method(quantised)}) is not supported: weights must be plain"
            " F32, F16 or BF16; take the model as it was before, which piBLOOM quantises itself"
        )
    for field, plain in _UNSUPPORTED.items():
        if (value := data.get(field, plain)) is not plain:
            raise ModelError(f"{field} is not supported, and here it is {shown(value)}")
    parts, exact = data.get("pretraining_tp", 1), data.get("slow_but_exact", False)
    if exact and parts != 1:
        # transformers then leaves out the biases of two layers in each block.
        raise ModelError(
            f"slow_but_exact is not supported with a pretraining_tp of {shown(parts)}; false is"
            " what the published models have"
        )


def _method(quantised: object) -> str:
    if isinstance(quantised, Mapping):
        if method := quantised.get("quant_method"):
            return shortened(str(method))
        for flag in ("load_in_8bit", "load_in_4bit"):
            if quantised.get(flag):
                return f"bitsandbytes, {flag}"
    return "of an unknown method"
