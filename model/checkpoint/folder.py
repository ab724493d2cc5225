"""A checkpoint folder as the hub ships it, checked before anything is loaded.

Weights may be safetensors or `pytorch_model.bin`, in one file or in shards. A folder of which
transformers would make another model than piBLOOM is refused, and the error names the reason.
"""

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from model.checkpoint.generation_config import GenerationConfig
from model.checkpoint.gptq import GptqSettings
from model.checkpoint.tensor import Packed, TensorInfo
from model.checkpoint.weight_files import names_of, other_weights, tensors_of, weight_files
from model.checkpoint.weights import GROUP, TYPES, Reader, same_values
from model.config import BloomConfig
from model.errors import ModelError
from model.files import shown
from model.text.tokenizer import Tokenizer
from model.vocabulary.cut import VocabularyCut

PREFIX = "transformer."
_EMBEDDING, _HEAD = "word_embeddings.weight", "lm_head.weight"
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# Buffers of older exporters: masks, which every model of the kind has, and no weights.
_MASKS = re.compile(
    r"h\.\d+\.(self_attention|attn)\.(bias|masked_bias|scale_mask_softmax\.causal_mask)"
)
# Tensors that no language model has, by patterns of their names, and what they are.
_FOREIGN = (
    (r"lora_|^base_model\.|^prompt_encoder|^modules_to_save", "of an adapter; merge it into the"
     " weights first (merge_and_unload of PEFT)"),
    (r"(weight_scale|weight_scale_inv|input_scale|qweight|qzeros|scales|g_idx|SCB|absmax"
     r"|quant_map|quant_state\..*|weight_format|weight_packed|weight_shape)$",
     "of quantised weights, which are not supported; take the model as it was before, which"
     " piBLOOM quantises itself"),
    (r"^(score|classifier|qa_outputs|v_head|value_head|reward_head)\.", "the head of another task,"
     " and only a language model is served"),
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files are complete and fit each other."""

    folder: Path
    config: BloomConfig
    tensors: list[TensorInfo]
    generation: GenerationConfig
    cut: VocabularyCut | None = None  # the entries of its vocabulary that are kept; None: all
    gptq: GptqSettings | None = None  # how its weights are quantised already

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read the folder's headers; `ModelError` names the file and what was expected of it.

        Weights are not read.
        """
        check_folder(folder)
        _refuse_other_folders(folder)
        config = BloomConfig.open(folder / "config.json")
        generation = GenerationConfig.open(folder, config.vocab_size)
        config = replace(config, eos_token_ids=generation.eos_token_ids)
        stored = tensors_of(weight_files(folder))
        gptq = GptqSettings.open(folder, stored)
        tensors = _model_tensors(folder, config, gptq.joined(folder, stored) if gptq else stored)
        return cls(folder, config, tensors, generation, gptq=gptq)

    @cached_property
    def files(self) -> list[Path]:
        """Every file of the folder, by name."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    @property
    def parameters(self) -> int:
        """Number of weights; an output head that is the word embedding is not counted again."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def has_own_head(self) -> bool:
        """Whether an output head is stored that differs from the word embedding; reads both.

        transformers keeps the two apart then, whatever config.json says of them.
        """
        found = {tensor.name: tensor for tensor in self.tensors}
        head = found.get(_HEAD)
        return head is not None and not same_values(self.folder, found[_EMBEDDING], head)

    @cached_property
    def kept_codes(self) -> dict[str, int]:
        """Bits of codes, 4 or 5, that keep every value of a layer's quantised matrix, by its name.

        Without those that no scale for each 64 columns can keep; reads all but the weights' codes.
        """
        with Reader(self.folder) as reader:
            return {
                tensor.name: bits
                for tensor in self.tensors
                if tensor.packed
                and tensor.name.startswith("h.")
                and (bits := _kept_codes(reader, tensor, tensor.packed))
            }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight that counts: the output head only where it is its own."""
        shapes = self.config.shapes()
        if self.has_own_head:
            shapes[_HEAD] = shapes[_EMBEDDING]
        return shapes

    def cut_to(self, cut: VocabularyCut) -> "Checkpoint":
        """Return it with a smaller vocabulary: a row of the embedding and the head for each entry.

        Ids that end a reply are the new ones.
        """
        ends = tuple(cut.new_ids[id_] for id_ in self.config.eos_token_ids if id_ in cut.new_ids)
        return replace(
            self,
            config=replace(self.config, vocab_size=len(cut.ids), eos_token_ids=ends),
            tensors=[
                replace(tensor, kept=cut.ids) if tensor.name in (_EMBEDDING, _HEAD) else tensor
                for tensor in self.tensors
            ],
            generation=replace(self.generation, eos_token_ids=ends),
            cut=cut,
        )

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer; `ModelError` when it has more entries than the embedding has rows."""
        if self.cut:
            return self.cut.tokenizer
        tokenizer = Tokenizer.open(self.folder)
        if tokenizer.size > self.config.vocab_size:
            raise ModelError(
                f"{self.folder / 'tokenizer.json'} has {tokenizer.size} entries, but the model's"
                f" word embedding has only {self.config.vocab_size} rows"
            )
        return tokenizer


def _kept_codes(reader: Reader, tensor: TensorInfo, packed: Packed) -> int | None:
    groups = reader.group_of_columns(tensor)
    if packed.bits > 4 or any(
        len(set(groups[at : at + GROUP])) > 1 for at in range(0, len(groups), GROUP)
    ):
        return None
    if not reader.scales_are_halves(tensor):
        return None
    return 4 if packed.bits < 4 or reader.zeros_are_half(tensor) else 5


def check_folder(folder: Path) -> None:
    """Refuse a path that is not a folder."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "is not there"
        raise ModelError(
            f"{folder} {problem}; a checkpoint is a folder with config.json, tokenizer.json and"
            " model.safetensors or pytorch_model.bin, and a baked model is a file NAME.bloom"
            f"{other_weights([folder.name])}"
        )


def _refuse_other_folders(folder: Path) -> None:
    """Refuse adapters, folders of the hub's cache and other programs', and say what they are."""
    for name in _ADAPTERS:
        if (folder / name).exists():
            raise ModelError(
                f"{folder / name} is an adapter (LoRA): merge it into its model, as in pibloom bake"
                " MODEL --adapter FOLDER, or move it away"
            )
    if not (folder / "config.json").exists() and (folder / "snapshots").is_dir():
        raise ModelError(
            f"{folder} is a folder of the hub's cache; the model is in {folder / 'snapshots'}/…"
        )
    if not (folder / "config.json").exists() and (other := other_weights(names_of(folder))):
        raise ModelError(f"{folder} has no config.json, which a checkpoint needs{other}")


def _model_tensors(
    folder: Path, config: BloomConfig, tensors: list[TensorInfo]
) -> list[TensorInfo]:
    """Return the tensors of the model that config.json describes, each once, under their names."""
    found: dict[str, TensorInfo] = {}
    for stored in tensors:
        tensor = replace(stored, name=stored.name.removeprefix(PREFIX))
        if other := found.get(tensor.name):
            raise ModelError(
                f"{folder}: {shown(tensor.name)} is stored twice, as {shown(other.key)} in"
                f" {other.file} and as {shown(tensor.key)} in {tensor.file}; which one counts is"
                " not known"
            )
        found[tensor.name] = tensor
    shapes = config.shapes()
    if config.tie_word_embeddings and _EMBEDDING not in found and _HEAD in found:
        found[_EMBEDDING] = replace(found.pop(_HEAD), name=_EMBEDDING)
    if not config.tie_word_embeddings and _HEAD not in found:
        raise ModelError(
            f"{folder}: tie_word_embeddings is false in config.json, but the weights lack {_HEAD}"
        )
    if _HEAD in found:
        shapes[_HEAD] = shapes[_EMBEDDING]
    for name in found.keys() - shapes.keys():
        if not _is_mask(found[name]):
            raise ModelError(
                f"{folder / found[name].file}: {shown(found[name].key)} is {_foreign(name, config)}"
            )
    for name, shape in shapes.items():
        _check(folder, name, shape, found.get(name))
    return [tensor for name, tensor in found.items() if name in shapes]


def _is_mask(tensor: TensorInfo) -> bool:
    """Whether it is a mask: of four dimensions, or a single number, and not a vector as a bias."""
    return bool(_MASKS.fullmatch(tensor.name)) and len(tensor.shape) in (0, 4)


def _foreign(name: str, config: BloomConfig) -> str:
    for pattern, description in _FOREIGN:
        if re.search(pattern, name):
            return description
    layer = re.match(r"h\.(\d+)\.", name)
    if layer and int(layer[1][:9]) >= config.layers:
        return f"of a layer beyond the {config.layers} of config.json"
    return "not a tensor of a BLOOM of its config.json"


def _check(folder: Path, name: str, shape: tuple[int, ...], tensor: TensorInfo | None) -> None:
    if tensor is None:
        raise ModelError(f"{folder}: the weights lack {name}, which a BLOOM of its config.json has")
    if tensor.shape != shape:
        raise ModelError(
            f"{folder / tensor.file}: {name} is {shown(list(tensor.shape))},"
            f" but config.json asks for {list(shape)}"
        )
    if not tensor.packed and tensor.dtype not in TYPES:
        raise ModelError(
            f"{folder / tensor.file}: {name} is of the type {shown(tensor.dtype)}; weights must be"
            f" {', '.join(TYPES)}"
        )
