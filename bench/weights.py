"""Random weights of BLOOM-560m's shape and vocabulary, as a checkpoint folder and as GGUF files.

How fast an engine is does not depend on what its weights say. Everything is kept in a cache and
made once, in about a minute.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.baked.cache import cache_folder
from model.config import BloomConfig
from model.names import default_model

SHAPE = {"hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250_880}
ENTRIES = 250_680  # of the tokenizer; the embedding's other rows are padding


def checkpoint() -> Path:
    """Return the checkpoint folder, making it first if need be."""
    folder = cache_folder() / "bench" / "bloom-560m-random"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        demo = default_model()
        config = json.loads((demo / "config.json").read_text()) | SHAPE | {"seq_length": 2048}
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        shutil.copy(demo / "tokenizer_config.json", folder)
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(demo), ensure_ascii=False))
        _write_weights(folder, BloomConfig.from_dict(config))
    return folder


def _tokenizer(demo: Path) -> dict[str, Any]:
    """A byte-level BPE with random merges: as large as BLOOM's, and as slow to read."""
    data: dict[str, Any] = json.loads((demo / "tokenizer.json").read_text())
    chance, vocab = random.Random(0), data["model"]["vocab"]
    known, merges = list(vocab)[4:], data["model"]["merges"]
    while len(vocab) < ENTRIES:
        left, right = chance.choice(known), chance.choice(known)
        if len(left + right) < 14 and left + right not in vocab:
            vocab[left + right] = len(vocab)
            known.append(left + right)
            merges.append([left, right])
    return data


def _write_weights(folder: Path, config: BloomConfig) -> None:
    import numpy as np

    chance = np.random.default_rng(0)
    table, at = {}, 0
    for name, shape in config.shapes().items():
        size = 2 * int(np.prod(shape))
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    partial = folder / "model.safetensors.partial"
    with partial.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, shape in config.shapes().items():
            if len(shape) == 2:
                values = chance.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            else:
                values = np.full(shape, float(name.endswith("weight")), np.float32)
            (values.view(np.uint32) >> 16).astype("<u2").tofile(file)
    partial.rename(folder / "model.safetensors")


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield each tensor of a folder as float32, named as a bare BloomModel's."""
    import numpy as np

    types = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
    with (folder / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(size))
        table.pop("__metadata__", None)
        for name, found in table.items():
            start, end = found["data_offsets"]
            file.seek(8 + size + start)
            values = np.frombuffer(file.read(end - start), types[found["dtype"]])
            if found["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            shaped = values.astype(np.float32).reshape(found["shape"])
            yield name.removeprefix("transformer."), shaped


def gguf(kind: str) -> Path:
    """Return the random weights for llama.cpp, with `kind` Q8_0 or Q4_0 for every matrix."""
    folder = checkpoint()
    path = folder.with_name(f"bloom-560m-random-{kind}.gguf")
    if not path.exists():
        write_gguf(folder, path, kind)
    return path


def write_gguf(folder: Path, path: Path, kind: str) -> None:
    """Write a checkpoint folder for llama.cpp, with `kind` F32, Q8_0 or Q4_0 for every matrix."""
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize
    from gguf.tensor_mapping import get_tensor_name_map

    config = BloomConfig.open(folder / "config.json")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "bloom")
    writer.add_context_length(config.max_context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(getattr(LlamaFileType, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"))
    known = len(tokenizer["vocab"])
    entries = [*tokenizer["vocab"], *(f"<pad{at}>" for at in range(known, config.vocab_size))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("bloom")
    writer.add_token_list(entries)
    special = [3 if at < 4 or at >= known else 1 for at in range(len(entries))]
    writer.add_token_types(special)
    writer.add_token_merges(
        [" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["merges"]]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = get_tensor_name_map(MODEL_ARCH.BLOOM, config.layers)
    for name, values in tensors(folder):
        if "query_key_value" in name:  # llama.cpp wants all queries, then all keys, all values
            heads = values.reshape(config.heads, 3, config.head_size, -1)
            values = heads.swapaxes(0, 1).reshape(values.shape)
        full = names.get_name(f"transformer.{name}", (".weight", ".bias")) or names.get_name(
            name, (".weight", ".bias")
        )
        if values.ndim == 2:
            type_ = getattr(GGMLQuantizationType, kind)
            writer.add_tensor(full, quantize(values, type_), raw_dtype=type_)
        else:
            writer.add_tensor(full, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def ctranslate2() -> Path:
    """Return the weights for CTranslate2, in int8."""
    import ctranslate2 as ct2

    folder = checkpoint()
    path = folder.with_name("bloom-560m-random-ct2")
    if not path.exists():
        ct2.converters.TransformersConverter(str(folder), low_cpu_mem_usage=True).convert(
            str(path), quantization="int8"
        )
    return path


if __name__ == "__main__":
    print(checkpoint())
