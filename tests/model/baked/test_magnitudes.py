"""Weights of every size: served as transformers computes with float32, or refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.errors import ModelError
from tests.model.baked.sections import tensors_and_tokenizer

Weights = dict[str, Tensor]
Change = Callable[[Weights, float], None]

ROWS, WIDTH, HEADS = 8192, 64, 4
TOKENS = [5, 77, 4100, 8000, 12]
LAYER = "transformer.h.0."
# How far a logit may be off, in standard deviations of all of them, as in native/test_engine.py.
TOLERANCE = {8: 0.2, 4: 1.5}


@pytest.fixture(scope="module")
def model() -> BloomForCausalLM:
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=ROWS, hidden_size=WIDTH, n_layer=1, n_head=HEADS, initializer_range=0.2
    )
    return BloomForCausalLM(config).eval()


def weights_of(model: BloomForCausalLM) -> Weights:
    found = {name: value.clone() for name, value in model.state_dict().items()}
    del found["lm_head.weight"]
    return found


def embedding(weights: Weights, factor: float) -> None:
    weights["transformer.word_embeddings.weight"] *= factor


def values_against_dense(weights: Weights, factor: float) -> None:
    """Rows of one matrix become small and the next one large, or the other way round."""
    for name in ("weight", "bias"):
        fused = weights[f"{LAYER}self_attention.query_key_value.{name}"]
        fused.view(HEADS, 3, WIDTH // HEADS, -1)[:, 2] *= factor
    weights[f"{LAYER}self_attention.dense.weight"] /= factor


def last_matrix(weights: Weights, factor: float) -> None:
    weights[f"{LAYER}mlp.dense_4h_to_h.weight"] *= factor


def one_row(weights: Weights, factor: float) -> None:
    weights["transformer.word_embeddings.weight"][TOKENS[-1]] *= factor


CHANGES: dict[str, Change] = {
    "the embedding": embedding,
    "values against dense": values_against_dense,
    "the last matrix": last_matrix,
    "one row": one_row,
}


def folder_of(weights: Weights, demo: Path, folder: Path) -> Path:
    folder.mkdir()
    BloomConfig(vocab_size=ROWS, hidden_size=WIDTH, n_layer=1, n_head=HEADS).save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits_of(baked: Path) -> Tensor:
    engine = NativeEngine(BakedModel(baked), threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
    assert logits is not None
    return torch.tensor(logits.at(range(ROWS)))


def reference(model: BloomForCausalLM, weights: Weights) -> Tensor:
    before = weights_of(model)
    try:
        model.load_state_dict(weights, strict=False)
        with torch.inference_mode():
            logits: Tensor = model(torch.tensor([TOKENS])).logits[0, -1]
    finally:
        model.load_state_dict(before, strict=False)
    return logits


@pytest.mark.parametrize(
    ("change", "power"),
    [
        (change, power)
        for change in CHANGES
        for power in range(-12, 13)
        if change != "one row" or power < 0  # one large row is an outlier, right but coarse
    ],
)
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_any_size_are_right_or_refused(
    model: BloomForCausalLM, demo: Path, tmp_path: Path, bits: int, change: str, power: int
) -> None:
    weights = weights_of(model)
    CHANGES[change](weights, 10.0**power)
    folder = folder_of(weights, demo, tmp_path / "bloom")
    try:
        bake(Checkpoint.open(folder), tmp_path / "m.bloom", bits=bits)
    except ModelError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert abs(power) > 3, "ordinary weights are served"
        assert ".weight holds" in refused
        assert "too small" in refused or "too large" in refused
        return
    theirs, ours = reference(model, weights), logits_of(tmp_path / "m.bloom")
    n_vocab = BakedModel(tmp_path / "m.bloom").n_vocab
    difference = (ours - theirs)[:n_vocab].abs().max()
    assert difference < TOLERANCE[bits] * theirs[:n_vocab].std()


@pytest.mark.parametrize("deviation", [1e-3, 1e-4, 1e-5, 5e-6, 3e-6, 2e-6])
def test_small_weights_are_as_exact_as_others(
    model: BloomForCausalLM, demo: Path, tmp_path: Path, deviation: float
) -> None:
    weights = weights_of(model)
    torch.manual_seed(1)
    for name, value in weights.items():
        if value.ndim == 2:
            weights[name] = torch.randn_like(value) * deviation
    folder = folder_of(weights, demo, tmp_path / "bloom")
    errors = bake(Checkpoint.open(folder), tmp_path / "m.bloom")
    assert all(error.relative < 0.013 for error in errors)


VALUES = [float("inf"), float("-inf"), float("nan"), 1e30, -1e30, 3e38, 1e16, -1e16]
PLACES = (
    "transformer.word_embeddings.weight",
    "transformer.word_embeddings_layernorm.bias",
    f"{LAYER}self_attention.query_key_value.weight",
    f"{LAYER}self_attention.query_key_value.bias",
    f"{LAYER}mlp.dense_4h_to_h.weight",
    "transformer.ln_f.weight",
)


@pytest.mark.parametrize(
    ("value", "dtype", "bits"),
    [
        *((value, torch.float32, 8) for value in VALUES),
        *((value, torch.float32, bits) for value in (VALUES[2], 1e30) for bits in (4, 32)),
        *((value, torch.bfloat16, 8) for value in (VALUES[0], 1e30)),
        (1e300, torch.float64, 8),
    ],
)
@pytest.mark.parametrize("name", PLACES)
def test_a_value_that_is_no_weight_is_refused(
    model: BloomForCausalLM,
    demo: Path,
    tmp_path: Path,
    name: str,
    value: float,
    dtype: torch.dtype,
    bits: int,
) -> None:
    weights = {key: each.to(dtype) for key, each in weights_of(model).items()}
    weights[name].view(-1)[-1] = value
    folder = folder_of(weights, demo, tmp_path / "bloom")
    with pytest.raises(ModelError) as raised:
        bake(Checkpoint.open(folder), tmp_path / "m.bloom", bits=bits)
    assert str(raised.value).startswith(f"{name.removeprefix('transformer.')} holds a value")
    assert not list(tmp_path.glob("m.bloom*"))


@pytest.mark.parametrize("bits", [8, 4, 32])
def test_doubles_bake_to_the_same_as_floats(
    model: BloomForCausalLM, demo: Path, tmp_path: Path, bits: int
) -> None:
    weights = weights_of(model)
    for dtype in (torch.float32, torch.float64):
        cast = {key: each.to(dtype) for key, each in weights.items()}
        (tmp_path / str(dtype)).mkdir()
        folder = folder_of(cast, demo, tmp_path / str(dtype) / "bloom")
        bake(Checkpoint.open(folder), tmp_path / f"{dtype}.bloom", bits=bits)
    floats, doubles = (
        BakedModel(tmp_path / f"torch.{name}.bloom") for name in ("float32", "float64")
    )
    assert tensors_and_tokenizer(floats) == tensors_and_tokenizer(doubles)


def test_zeros_are_no_loss(model: BloomForCausalLM, demo: Path, tmp_path: Path) -> None:
    weights = weights_of(model)
    weights[f"{LAYER}self_attention.dense.weight"].zero_()
    weights["transformer.word_embeddings.weight"][7] = 0
    folder = folder_of(weights, demo, tmp_path / "bloom")
    errors = bake(Checkpoint.open(folder), tmp_path / "m.bloom")
    assert {error.name: error.relative for error in errors}["h.0.self_attention.dense.weight"] == 0
