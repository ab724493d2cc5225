"""Every form of a BLOOM in docs/models.md: served as transformers computes it, or refused as said.

The table of that page is read here: what a row promises is what is tested.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM, LlamaConfig

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.errors import ModelError
from model.text.tokenizer import Tokenizer
from tests.documented_forms import TABLE

Weights = dict[str, Tensor]
Form = Callable[[Path], None]

ROWS = 8192  # entries of the demo model's tokenizer
TOKENS = [5, 77, 4100, 8000, 12]
TEXT = "Hello, world! Bonjour à tous. 你好 [INST] <|im_end|></s> 12345 नमस्ते\n\n  x"
EMBEDDING, HEAD = "word_embeddings.weight", "lm_head.weight"


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bloom-form"
    path.mkdir()
    shutil.copy(demo / "tokenizer.json", path)
    return path


def write(folder: Path, **sizes: Any) -> BloomForCausalLM:
    """Save a small BLOOM of random weights as transformers does, and return it."""
    torch.manual_seed(0)
    sizes = {"vocab_size": ROWS, "hidden_size": 32, "n_layer": 2, "n_head": 4} | sizes
    model = BloomForCausalLM(BloomConfig(initializer_range=0.2, **sizes)).eval()
    model.save_pretrained(folder)
    return model


def take(folder: Path) -> Weights:
    """Return the weights as they were saved, and delete their file."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    return weights


def put(folder: Path, weights: Weights, name: str = "model.safetensors") -> None:
    save_file(
        {key: value.contiguous() for key, value in weights.items()},
        folder / name,
        metadata={"format": "pt"},
    )


def change(path: Path, **fields: object) -> None:
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | fields))


def shards(folder: Path, weights: Weights, count: int, name: str) -> None:
    """Write the weights into several files with an index, as the hub's large models have them."""
    table: dict[str, str] = {}
    for number in range(count):
        part = dict(list(weights.items())[number::count])
        stem, suffix = name.split(".")
        file = f"{stem}-{number + 1:05}-of-{count:05}.{suffix}"
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            put(folder, part, file)
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": table}
    (folder / f"{name}.index.json").write_text(json.dumps(index))


def vocabulary(folder: Path, size: int, keep: Callable[[int], bool] = lambda id_: True) -> None:
    """Cut entries out of the tokenizer, and fill it up to a size with ones that nothing merges to.

    Ids move up, and merges stay whose three entries all stay, as LLMPruner does it.
    """
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    by_id = sorted(data["model"]["vocab"].items(), key=lambda entry: entry[1])
    kept = [text for text, id_ in by_id if id_ < 260 or keep(id_)]
    kept += [f"Ġfill{number}" for number in range(size - len(kept))]
    vocab = {text: id_ for id_, text in enumerate(kept)}
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair)
             for pair in data["model"]["merges"]]  # fmt: skip
    data["model"] |= {
        "vocab": vocab,
        "merges": [
            [left, right]
            for left, right in pairs
            if left in vocab and right in vocab and left + right in vocab
        ],
    }
    path.write_text(json.dumps(data))


def bigscience(folder: Path) -> None:
    """The names of config.json before transformers had BLOOM, and rows that no entry has."""
    write(folder, vocab_size=ROWS + 200)
    put(folder, {key: value.half() for key, value in take(folder).items()})
    old = {
        "model_type": "bloom", "architectures": ["BloomForCausalLM"], "vocab_size": ROWS + 200,
        "n_embed": 32, "n_layer": 2, "num_attention_heads": 4, "n_inner": None,
        "layer_norm_epsilon": 1e-05, "initializer_range": 0.02, "use_cache": True,
        "offset_alibi": 100, "masked_softmax_fusion": True, "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True, "skip_bias_add": True, "skip_bias_add_qkv": False,
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "pretraining_tp": 2, "seq_length": 2048,
        "slow_but_exact": False, "unk_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 3, "torch_dtype": "float16", "apply_residual_connection_post_layernorm":
        False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(old))


def fine_tune(folder: Path) -> None:
    """What a trainer saved: floats in a pickle, the tied head a second time, a longer context."""
    write(folder)
    weights = take(folder)
    weights[HEAD] = weights[f"transformer.{EMBEDDING}"]
    torch.save(weights, folder / "pytorch_model.bin")
    change(folder / "config.json", seq_length=4096, dtype="float32", use_cache=False)


def tigerbot(folder: Path) -> None:
    write(folder)
    weights = {key: value.half() for key, value in take(folder).items()}
    shards(folder, weights, 9, "pytorch_model.bin")


def sharded(folder: Path) -> None:
    write(folder)
    weights = {key: value.bfloat16() for key, value in take(folder).items()}
    shards(folder, weights, 3, "model.safetensors")


def finnish(folder: Path) -> None:
    """TurkuNLP's: a vocabulary of its own, heads of 86, no output head and no prefix."""
    vocabulary(folder, 131_072)
    write(folder, vocab_size=131_072, hidden_size=172, n_head=2, n_layer=1)
    weights = take(folder)
    put(folder, {key.removeprefix("transformer."): w for key, w in weights.items()})
    change(folder / "config.json", architectures=["BloomModel"])


def pruned(folder: Path) -> None:
    vocabulary(folder, 46_145, lambda id_: id_ % 3 != 0)
    write(folder, vocab_size=46_145)


def added(folder: Path) -> None:
    """Two tokens of a fine-tune's own, and an embedding with just one row for each entry."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[INST]", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    write(folder, vocab_size=ROWS + 2)
    change(folder / "generation_config.json", eos_token_id=[2, ROWS + 1])


def resized(folder: Path) -> None:
    model = write(folder)
    model.resize_token_embeddings(ROWS + 40, pad_to_multiple_of=128)
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == ROWS + 128


def own_head(folder: Path) -> None:
    write(folder)
    weights = take(folder)
    torch.manual_seed(1)
    put(folder, weights | {HEAD: torch.randn_like(weights[f"transformer.{EMBEDDING}"])})
    change(folder / "config.json", tie_word_embeddings=False)


def hub_cache(folder: Path) -> None:
    """Every file is a link into the folder of blobs."""
    write(folder)
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(list(folder.iterdir())):
        path.rename(blobs / f"{number:064x}")
        path.symlink_to(Path("..") / "blobs" / f"{number:064x}")


def no_context(folder: Path) -> None:
    write(folder)
    data = json.loads((folder / "config.json").read_text())
    assert "seq_length" not in data


SERVED: dict[str, Form] = {
    "bigscience": bigscience,
    "a fine-tune": fine_tune,
    "tigerbot": tigerbot,
    "shards in bf16": sharded,
    "Finnish": finnish,
    "a pruned vocabulary": pruned,
    "two added tokens": added,
    "a resized embedding": resized,
    "an output head of its own": own_head,
    "the hub's cache": hub_cache,
    "no length of context": no_context,
}


def expected(folder: Path) -> Tensor:
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([TOKENS])).logits[0, -1]
    return logits


def ours(folder: Path) -> Tensor:
    baked = folder.parent / "m.bloom"
    bake(Checkpoint.open(folder), baked, bits=32)
    model = BakedModel(baked)
    engine = NativeEngine(model, threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
    assert logits is not None
    return torch.tensor(logits.at(range(model.n_vocab)))


@pytest.mark.parametrize("case", SERVED)
def test_a_form_is_served(folder: Path, case: str) -> None:
    assert TABLE[f"a_form_is_served[{case}]"].outcome.startswith("served")
    SERVED[case](folder)
    theirs = expected(folder)
    logits = ours(folder)
    theirs = theirs[: len(logits)]  # without rows that no entry of the tokenizer has
    assert (logits - theirs).abs().max() < 1e-4 * theirs.std()
    library = AutoTokenizer.from_pretrained(folder)
    assert Tokenizer.open(folder).ids(TEXT, add_special_tokens=False) == library.encode(
        TEXT, add_special_tokens=False
    )


def only(*names: str) -> Form:
    """Make a folder with files of another format in place of the weights."""

    def form(folder: Path) -> None:
        write(folder)
        take(folder)
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"weights")

    return form


def only_gguf(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "bloom-560m.Q4_K_M.gguf").write_bytes(b"GGUF")


def too_few_rows(folder: Path) -> None:
    write(folder, vocab_size=ROWS - 92)


def head_of_more_rows(folder: Path) -> None:
    write(folder)
    put(folder, take(folder) | {HEAD: torch.zeros(ROWS + 64, 32)})
    change(folder / "config.json", tie_word_embeddings=False)


def llama(folder: Path) -> None:
    LlamaConfig().save_pretrained(folder)


def former_tokenizer(folder: Path) -> None:
    write(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")


REFUSED: dict[str, Form] = {
    "GGUF": only("bloom-560m.Q4_K_M.gguf"),
    "GGUF alone": only_gguf,
    "ONNX": only("onnx/decoder_model.onnx"),
    "TensorFlow": only("tf_model.h5"),
    "Flax": only("flax_model.msgpack"),
    "an older GPTQ's": only("bloom7b-2m-4bit-128g.pt"),
    "no weights": only(),
    "fewer rows than entries": too_few_rows,
    "a head of more rows": head_of_more_rows,
    "another architecture": llama,
    "a tokenizer without tokenizer.json": former_tokenizer,
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_form_is_refused(folder: Path, case: str) -> None:
    outcome = TABLE[f"a_form_is_refused[{case}]"].outcome
    sentence = re.fullmatch(r"refused: `(.+)`", outcome)
    assert sentence, outcome
    REFUSED[case](folder)
    with pytest.raises(ModelError) as raised:
        bake(Checkpoint.open(folder), folder.parent / "m.bloom")
    parts = map(re.escape, sentence[1].split("…"))
    assert re.search(".*".join(parts), str(raised.value)), raised.value
    assert not list(folder.parent.glob("m.bloom*"))


def test_a_file_of_another_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bloom-560m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"is not a folder; .* is of llama.cpp \(GGUF\), which"):
        Checkpoint.open(path)


def test_the_table_has_each_form() -> None:
    here = {f"a_form_is_served[{case}]" for case in SERVED}
    here |= {f"a_form_is_refused[{case}]" for case in REFUSED}
    assert here == {test for test in TABLE if test.startswith("a_form_is_")}
