"""Folders that are no plain BLOOM: served as transformers loads them, or refused by name."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.baked.format import Header
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Engine, S, Work
from model.engine.native import NativeEngine
from model.engine.reference import ReferenceEngine
from model.errors import ModelError

Weights = dict[str, Tensor]
Change = Callable[[Weights], None]

ROWS, WIDTH = 8192, 32
TOKENS = [5, 77, 4100, 8000, 12]
EMBEDDING, HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
# How far a logit may be off, in standard deviations of all of them, as in native/test_engine.py.
TOLERANCE = {8: 0.2, 4: 1.5}
FUSED = "transformer.h.0.self_attention.query_key_value.weight"


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "bloom"
    config = BloomConfig(
        vocab_size=ROWS, hidden_size=WIDTH, n_layer=2, n_head=4, initializer_range=0.2
    )
    BloomForCausalLM(config).save_pretrained(path)
    shutil.copy(demo / "tokenizer.json", path)
    return path


def configure(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, change: Change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reference(folder: Path) -> Tensor:
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([TOKENS])).logits[0, -1]
    return logits


def ours(folder: Path, bits: int = 32) -> Tensor:
    baked = folder.parent / "m.bloom"
    bake(Checkpoint.open(folder), baked, bits=bits)
    engine = NativeEngine(BakedModel(baked), threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
    assert logits is not None
    return torch.tensor(logits.at(range(ROWS)))


def greedy(engine: Engine[S]) -> list[int]:
    sequence, tokens = engine.new_sequence(TOKENS, 40), list(TOKENS)
    for _ in range(20):
        (logits,) = engine.forward([Work(sequence, tokens[sequence.length :])])
        assert logits is not None
        tokens.append(logits.top(1)[0][0])
    return tokens


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as raised:
        bake(Checkpoint.open(folder), folder.parent / "m.bloom")
    assert not list(folder.parent.glob("m.bloom*"))
    return str(raised.value)


def set_head(weights: Weights, head: Tensor) -> None:
    weights[HEAD] = head.clone().contiguous()


def move_embedding(weights: Weights) -> None:
    weights[HEAD] = weights.pop(EMBEDDING)


def masks(weights: Weights) -> None:
    for layer in range(2):
        block = f"transformer.h.{layer}.self_attention."
        weights[f"{block}masked_bias"] = torch.tensor(-1e4)
        weights[f"{block}bias"] = torch.ones(1, 1, 8, 8)


def zeros(weights: Weights) -> None:
    weights[EMBEDDING][:9] = 0.0
    weights[HEAD] = weights[EMBEDDING].clone()
    weights[HEAD][:9] = -0.0


def one_bit(weights: Weights) -> None:
    head = weights[EMBEDDING].clone()
    head[7000, 3] = torch.nextafter(head[7000, 3], torch.tensor(9.0))
    weights[HEAD] = head


def convert(dtype: torch.dtype) -> Change:
    def change(weights: Weights) -> None:
        for name in weights:
            weights[name] = weights[name].to(dtype)

    return change


def nothing(weights: Weights) -> None:
    pass


# What changes in the weights, and whether config.json ties the head to the embedding.
SERVED: dict[str, tuple[Change, bool | None]] = {
    "the head is the embedding": (lambda w: set_head(w, w[EMBEDDING]), True),
    "the same, without a word in config.json": (lambda w: set_head(w, w[EMBEDDING]), None),
    "the same, though it is not tied": (lambda w: set_head(w, w[EMBEDDING]), False),
    "a head of zeros and minus zeros": (zeros, True),
    "only a head": (move_embedding, True),
    "only a head, without a word in config.json": (move_embedding, None),
    "no head": (nothing, True),
    "masks of older exporters": (masks, True),
    "float64": (convert(torch.float64), True),
    "bfloat16": (convert(torch.bfloat16), True),
    "float16": (convert(torch.float16), True),
}


def tie(folder: Path, tied: bool | None) -> None:
    if tied is not None:
        configure(folder, tie_word_embeddings=tied)


@pytest.mark.parametrize("case", SERVED)
def test_what_transformers_loads_is_served_as_it_does(folder: Path, case: str) -> None:
    change, tied = SERVED[case]
    rewrite(folder, change)
    tie(folder, tied)
    assert (ours(folder) - reference(folder)).abs().max() < 1e-3


# Heads that transformers keeps apart from the embedding.
UNTIED: dict[str, tuple[Change, bool | None]] = {
    f"{name}, tied: {tied}": (change, tied)
    for name, change in {
        "one bit of one weight": one_bit,
        "twice as large": lambda w: set_head(w, w[EMBEDDING] * 2),
        "another one": lambda w: set_head(w, torch.randn_like(w[EMBEDDING])),
        "its last row": lambda w: set_head(
            w, torch.cat((w[EMBEDDING][:-1], torch.ones(1, WIDTH)))
        ),
        "rows the other way round": lambda w: set_head(w, w[EMBEDDING].flip(0)),
        "rounded": lambda w: set_head(w, w[EMBEDDING].half()),
    }.items()
    for tied in (True, False, None)
}  # fmt: skip


@pytest.mark.parametrize("case", UNTIED)
def test_a_head_of_its_own_is_served(folder: Path, case: str) -> None:
    change, tied = UNTIED[case]
    rewrite(folder, change)
    tie(folder, tied)
    theirs = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert not torch.equal(theirs.lm_head.weight, theirs.transformer.word_embeddings.weight)
    expected = reference(folder)
    assert (ours(folder) - expected).abs().max() < 1e-3
    baked = BakedModel(folder.parent / "m.bloom")
    assert baked.has_own_head
    assert not baked.config.tie_word_embeddings
    assert Checkpoint.open(folder).parameters == sum(p.numel() for p in theirs.parameters())


def test_both_engines_write_the_same_with_a_head_of_its_own(folder: Path) -> None:
    torch.manual_seed(1)
    rewrite(folder, lambda w: set_head(w, torch.randn_like(w[EMBEDDING])))
    ours(folder)
    baked = BakedModel(folder.parent / "m.bloom")
    native = NativeEngine(baked, threads=1)
    theirs = ReferenceEngine(folder, baked.config, vocabulary=baked.n_vocab, device="cpu")
    assert greedy(native) == greedy(theirs)


def test_a_file_that_lacks_a_part_of_its_head_is_refused(folder: Path) -> None:
    rewrite(folder, lambda w: set_head(w, w[EMBEDDING] * 2))
    baked = folder.parent / "m.bloom"
    bake(Checkpoint.open(folder), baked)
    data = bytearray(baked.read_bytes())
    header = Header.from_buffer(data)
    header.tensors, header.header_crc = header.tensors - 1, 0
    header.header_crc = zlib.crc32(bytes(data[: header.header_size]))
    baked.write_bytes(data)
    with pytest.raises(ModelError, match="the weights are not all there"):
        BakedModel(baked)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_head_of_its_own_is_rounded_as_the_embedding_is(folder: Path, bits: int) -> None:
    torch.manual_seed(1)
    rewrite(folder, lambda w: set_head(w, torch.randn_like(w[EMBEDDING])))
    expected = reference(folder)
    assert (ours(folder, bits) - expected).abs().max() < TOLERANCE[bits] * expected.std()


def test_a_head_that_is_the_embedding_is_kept_once(folder: Path) -> None:
    baked = folder.parent / "m.bloom"
    bake(Checkpoint.open(folder), baked)
    size = baked.stat().st_size
    rewrite(folder, lambda w: set_head(w, w[EMBEDDING]))
    bake(Checkpoint.open(folder), baked)
    assert baked.stat().st_size == size
    assert not BakedModel(baked).has_own_head


def test_a_head_that_is_not_a_number_is_refused(folder: Path) -> None:
    rewrite(folder, lambda w: set_head(w, w[EMBEDDING] * float("nan")))
    assert "lm_head.weight holds a value that is not finite" in refusal(folder)


def test_an_untied_head_that_is_not_there_is_refused(folder: Path) -> None:
    configure(folder, tie_word_embeddings=False)
    assert "tie_word_embeddings is false in config.json, but the weights lack" in refusal(folder)


def test_only_an_untied_head_is_refused(folder: Path) -> None:
    rewrite(folder, move_embedding)
    configure(folder, tie_word_embeddings=False)
    assert "lack word_embeddings.weight" in refusal(folder)


@pytest.mark.parametrize("shape", [(ROWS, WIDTH + 1), (ROWS - 1, WIDTH), (WIDTH, ROWS), (ROWS,)])
@pytest.mark.parametrize("only", [False, True])
def test_a_head_of_another_shape_is_refused(
    folder: Path, shape: tuple[int, ...], only: bool
) -> None:
    def change(weights: Weights) -> None:
        weights[HEAD] = torch.zeros(shape)
        if only:
            del weights[EMBEDDING]

    rewrite(folder, change)
    said = refusal(folder)
    assert str(list(shape)) in said
    assert str([ROWS, WIDTH]) in said


TASKS = {
    "BloomForSequenceClassification": "score.weight",
    "BloomForTokenClassification": "classifier.",
    "BloomForQuestionAnswering": "qa_outputs.",
}


@pytest.mark.parametrize("architectures", ["named", None, [], ["BloomForCausalLM"]])
@pytest.mark.parametrize("task", TASKS)
def test_a_model_for_another_task_is_refused(
    folder: Path, task: str, architectures: str | list[str] | None
) -> None:
    model = getattr(transformers, task)(BloomConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    if architectures != "named":
        configure(folder, architectures=architectures)
    said = refusal(folder)
    assert (task if architectures == "named" else TASKS[task]) in said
    assert "only a language model is served" in said


QUANTISED: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "load_in_8bit": {"load_in_8bit": True},
    "awq": {"quant_method": "awq", "bits": 4},
    "fp8": {"quant_method": "fp8"},
    "hqq": {"quant_method": "hqq"},
    "compressed-tensors": {"quant_method": "compressed-tensors"},
    "torchao": {"quant_method": "torchao"},
    "aqlm": {"quant_method": "aqlm"},
    "quanto": {"quant_method": "quanto"},
    "of an unknown method": {},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_models_are_refused_by_their_method(folder: Path, method: str) -> None:
    configure(folder, quantization_config=QUANTISED[method])
    assert f"quantization_config ({method}" in refusal(folder).replace("bitsandbytes, load", "load")


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
)
@pytest.mark.parametrize("alone", [False, True])
def test_adapters_are_refused(folder: Path, name: str, alone: bool) -> None:
    if alone:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    (folder / name).write_text("{}")
    said = refusal(folder)
    assert str(folder / name) in said
    assert "is an adapter" in said


BLOCK = "transformer.h.0."
TENSORS: dict[str, str] = {
    f"base_model.model.{BLOCK}self_attention.query_key_value.lora_A.weight": "of an adapter",
    f"{BLOCK}self_attention.query_key_value.lora_B.default.weight": "of an adapter",
    f"{BLOCK}self_attention.dense.lora_embedding_A": "of an adapter",
    "prompt_encoder.embedding.weight": "of an adapter",
    f"{FUSED}_scale": "of quantised weights",
    f"{FUSED}_scale_inv": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.input_scale": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.qweight": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.qzeros": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.scales": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.g_idx": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.SCB": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.weight.absmax": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.weight.quant_map": "of quantised weights",
    f"{BLOCK}mlp.dense_h_to_4h.weight_packed": "of quantised weights",
    "score.weight": "the head of another task",
    "classifier.bias": "the head of another task",
    "qa_outputs.weight": "the head of another task",
    "v_head.summary.weight": "the head of another task",
    "transformer.h.2.mlp.dense_h_to_4h.weight": "of a layer beyond the 2 of config.json",
    "transformer.h.9999999999999999999999.mlp.x": "of a layer beyond the 2 of config.json",
    f"{BLOCK}mlp.gate.weight": "not a tensor of a BLOOM",
    f"{BLOCK}self_attention.bias": "not a tensor of a BLOOM",
    "lm_head.bias": "not a tensor of a BLOOM",
    "transformer.word_position_embeddings.weight": "not a tensor of a BLOOM",
    "model.transformer.ln_f.weight": "not a tensor of a BLOOM",
    "module.lm_head.weight": "not a tensor of a BLOOM",
    "x" * 5000: "not a tensor of a BLOOM",
}
TYPES = [torch.float32, torch.int16, torch.uint32, torch.float8_e4m3fn, torch.uint8, torch.bool]


@pytest.mark.parametrize("name", TENSORS, ids=lambda name: name[:60])
def test_tensors_of_other_models_are_refused_by_name(folder: Path, name: str) -> None:
    rewrite(folder, lambda weights: weights.update({name: torch.zeros(4)}))
    said = refusal(folder)
    assert name[:60] in said
    assert TENSORS[name] in said
    assert len(said) < 800


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_strange_tensor_of_any_type_is_refused_by_name(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda weights: weights.update(extra=torch.zeros(4).to(dtype)))
    assert "'extra' is not a tensor of a BLOOM" in refusal(folder)


@pytest.mark.parametrize("dtype", [*TYPES[1:], torch.int8, torch.int64], ids=str)
@pytest.mark.parametrize("name", [EMBEDDING, FUSED, "transformer.ln_f.bias"])
def test_weights_of_other_types_are_refused_by_name(
    folder: Path, name: str, dtype: torch.dtype
) -> None:
    rewrite(folder, lambda weights: weights.update({name: weights[name].to(dtype)}))
    said = refusal(folder)
    assert f"{name.removeprefix('transformer.')} is of the type" in said
    assert "weights must be F64, F32, F16, BF16" in said
