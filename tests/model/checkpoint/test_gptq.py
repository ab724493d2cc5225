"""Folders that GPTQ quantised: the values that they mean, kept exactly where a format can."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from cli.main import pibloom
from model.baked.bake import QuantisationError, bake, planned_sizes
from model.baked.file import BakedModel
from model.checkpoint.adapter import Adapter
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Reader
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.errors import ModelError
from model.load import load
from model.vocabulary.cut import cut_vocabulary
from tests.model.checkpoint.gptq_folder import LINEAR as EACH_LINEAR
from tests.model.checkpoint.gptq_folder import (
    Form,
    configure,
    model_of,
    packed,
    quantised,
    save,
    write,
)

TOKENS = [5, 77, 4100, 8000, 12]
PARTS = ("qweight", "qzeros", "scales", "g_idx")
LINEAR = tuple(f"{name}.weight" for name in EACH_LINEAR)
FUSED = "transformer.h.0.self_attention.query_key_value"
# The forms, and the bits of the codes that keep all their values.
FORMS: dict[str, tuple[Form, int | None]] = {
    "scales that fp16 cannot keep": (Form(scales=torch.float32), None),
    "groups of 128": (Form(), 4),
    "groups of 64": (Form(group_size=64), 4),
    "groups of 256": (Form(group_size=256), 4),
    "whole rows": (Form(group_size=-1), 4),
    "whole rows of no multiple of 64": (Form(group_size=-1, width=96), 4),
    "a last group that is smaller": (Form(group_size=64, width=96), 4),
    "gptq_v2": (Form(checkpoint_format="gptq_v2"), 4),
    "no checkpoint_format": (Form(checkpoint_format=None), 4),
    "no g_idx": (Form(with_g_idx=False), 4),
    "scales in bfloat16": (Form(scales=torch.bfloat16), 4),
    "2 bits": (Form(bits=2, group_size=64), 4),
    "asymmetric": (Form(sym=False), 5),
    "asymmetric, gptq_v2": (Form(sym=False, checkpoint_format="gptq_v2"), 5),
    "asymmetric, 2 bits": (Form(bits=2, sym=False), 4),
    "groups of 32": (Form(group_size=32), None),
    "groups of 96": (Form(group_size=96), None),
    "by activations": (Form(desc_act=True, group_size=64), None),
    "by activations, whole rows": (Form(desc_act=True, group_size=-1), 4),
    "by activations, asymmetric": (Form(desc_act=True, group_size=64, sym=False), None),
    "8 bits": (Form(bits=8), None),
    "8 bits, asymmetric": (Form(bits=8, sym=False, group_size=64), None),
    "quantize_config.json": (Form(where="quantize_config.json"), 4),
    "AutoGPTQ's name": (Form(file="gptq_model-4bit-128g.safetensors"), 4),
}


@pytest.fixture(scope="session")
def written(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gptq") / "bloom-gptq"
    write(path, demo, Form())
    return path


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bloom-gptq"
    shutil.copytree(written, path)
    return path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def values(folder: Path) -> dict[str, Tensor]:
    checkpoint = Checkpoint.open(folder)
    with Reader(folder) as reader:
        return {
            f"transformer.{info.name}": torch.frombuffer(
                reader.whole(info).values, dtype=torch.float32
            ).reshape(info.shape)
            for info in checkpoint.tensors
        }


def baked(folder: Path, bits: int) -> tuple[dict[str, QuantisationError], Tensor]:
    """Return the errors of the matrices that GPTQ quantised, and logits."""
    path = folder.parent / f"{bits}.bloom"
    errors = bake(Checkpoint.open(folder), path, bits=bits)
    engine = NativeEngine(BakedModel(path), threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
    assert logits is not None
    return {e.name: e for e in errors if e.is_second}, torch.tensor(logits.at(range(8192)))


@pytest.mark.parametrize("case", FORMS)
def test_every_form_means_what_its_codes_say(demo: Path, tmp_path: Path, case: str) -> None:
    form, kept = FORMS[case]
    folder = tmp_path / "bloom-gptq"
    means = write(folder, demo, form)
    found = values(folder)
    assert found.keys() == means.keys() - {"lm_head.weight"}
    assert all(torch.equal(found[name], means[name]) for name in found)
    assert set(Checkpoint.open(folder).kept_codes.values()) == ({kept} if kept else set())
    with torch.inference_mode():
        theirs = model_of(folder, means)(torch.tensor([TOKENS])).logits[0, -1]
    for bits in (8, 4):
        errors, logits = baked(folder, bits)
        assert len(errors) == 8
        if kept:
            assert all(error.relative == error.largest == 0 for error in errors.values())
            stored = BakedModel(tmp_path / f"{bits}.bloom").tensors
            formats = {each.format for each in stored if each.name.endswith(LINEAR)}
            assert formats == {f"W{kept}"}
        limit = 0.01 if bits == 8 else 0.12
        assert all(error.relative < limit for error in errors.values())
        tolerance = 0.2 if bits == 8 or kept else 1.5
        assert (logits - theirs).abs().max() < tolerance * theirs.std()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "gptq_model-4bit-128g.bin"])
def test_pickles_are_read(demo: Path, tmp_path: Path, file: str) -> None:
    means = write(tmp_path, demo, Form(file=file, desc_act=True, sym=False))
    found = values(tmp_path)
    assert all(torch.equal(found[name], means[name]) for name in found)


def test_the_reference_engine_serves_the_same_values(folder: Path, tmp_path: Path) -> None:
    expected = values(folder)
    model = load(folder, engine="reference", device="cpu")
    try:
        engine: Any = model.scheduler._engine
        found = engine._model.state_dict()
    finally:
        model.close()
    assert found.keys() == expected.keys() | {"lm_head.weight"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(found["lm_head.weight"], expected["transformer.word_embeddings.weight"])


def test_an_adapter_is_added_to_the_values_of_the_file(folder: Path, tmp_path: Path) -> None:
    expected = values(folder)[f"{FUSED}.weight"]
    lora = tmp_path / "lora"
    lora.mkdir()
    described = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["query_key_value"],
    }
    (lora / "adapter_config.json").write_text(json.dumps(described))
    a, b = torch.randn(2, 128), torch.randn(384, 2)
    named = {"lora_A.weight": a, "lora_B.weight": b}
    save_file(
        {f"base_model.model.{FUSED}.{name}": part for name, part in named.items()},
        lora / "adapter_model.safetensors",
    )
    checkpoint = Checkpoint.open(folder)
    adapter = Adapter.open(lora, checkpoint.config)
    (info,) = (each for each in checkpoint.tensors if FUSED.endswith(each.name[:-7]))
    with Reader(folder) as reader, Reader(lora) as added:
        (rows,) = adapter.merged(info.name, reader.rows(info), added)
    found = torch.tensor(rows.values[:]).reshape(384, 128)
    assert torch.allclose(found, expected + 3 * b @ a, rtol=1e-5, atol=1e-5)
    assert rows.scales is None
    errors = bake(checkpoint, tmp_path / "m.bloom", bits=8, adapter=adapter)
    rounded = [error.name for error in errors if error.is_second and error.relative]
    assert rounded == [info.name]
    planned = planned_sizes(checkpoint, 8, adapter)
    stored = BakedModel(tmp_path / "m.bloom").tensors
    assert planned.token == sum(each.nbytes for each in stored if not each.name.endswith(".low"))


def test_bake_says_what_a_second_rounding_cost(folder: Path, demo: Path, tmp_path: Path) -> None:
    said = command("bake", folder, "-o", tmp_path / "m.bloom").output
    assert "all 8 matrices that GPTQ quantised keep their values" in said
    write(tmp_path / "ordered", demo, Form(desc_act=True, group_size=64))
    said = command("bake", tmp_path / "ordered", "-o", tmp_path / "m.bloom").output
    assert (
        "0 of 8 matrices that GPTQ quantised keep their values; a second rounding cost 0." in said
    )


def test_inspect_says_how_a_folder_is_quantised(folder: Path, demo: Path, tmp_path: Path) -> None:
    facts = json.loads(command("inspect", folder, "--json").output)
    assert facts["quantised"] == "GPTQ, 4 bits, groups of 128"
    assert facts["values_kept"] == "of 8 of 8 matrices"
    write(tmp_path / "ordered", demo, Form(desc_act=True, group_size=64))
    facts = json.loads(command("inspect", tmp_path / "ordered", "--json").output)
    ordered = "GPTQ, 4 bits, groups of 64, columns in the order of their activations"
    assert facts["quantised"] == ordered
    assert facts["values_kept"] == "of 0 of 8 matrices"
    command("bake", folder, "-o", tmp_path / "m.bloom")
    facts = json.loads(command("inspect", tmp_path / "m.bloom", "--json").output)
    assert facts["source"] == "GPTQ, 4 bits, groups of 128 in safetensors"


def command(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(pibloom, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read(folder: Path, suffix: str) -> None:
    expected = values(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    base = "model" if suffix == "safetensors" else "pytorch_model"
    places = {name: f"{base}-{at % 2 + 1:05}-of-00002.{suffix}" for at, name in enumerate(weights)}
    for file in set(places.values()):
        save(folder / file, {name: weights[name] for name in weights if places[name] == file})
    (folder / f"{base}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}))
    found = values(folder)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_modules_that_were_left_out_stay_as_they_are(folder: Path) -> None:
    """As with `modules_in_block_to_quantize` of optimum, and `dynamic` of GPTQModel."""
    expected = values(folder)
    plain = torch.randn(384, 128).half()

    def change(weights: dict[str, Tensor]) -> None:
        for part in PARTS:
            del weights[f"{FUSED}.{part}"]
        weights[f"{FUSED}.weight"] = plain

    rewrite(folder, change)
    settings = Form().settings | {
        "modules_in_block_to_quantize": [["self_attention.dense"]],
        "dynamic": {r"-:.*h\.0\.self_attention.*": {}},
    }
    configure(folder, quantization_config=settings)
    expected[f"{FUSED}.weight"] = plain.float()
    found = values(folder)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    errors, _ = baked(folder, 4)
    assert len(errors) == 7
    assert not any(error.relative for error in errors.values())


def test_a_head_that_is_quantised_is_served(folder: Path) -> None:
    torch.manual_seed(3)
    parts, head = quantised(torch.randn(8192, 128), Form())
    rewrite(folder, lambda w: w.update({f"lm_head.{part}": parts[part] for part in parts}))
    configure(folder, tie_word_embeddings=False)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.has_own_head
    weights = values(folder)
    weights["lm_head.weight"] = weights.pop("transformer.lm_head.weight")
    assert torch.equal(weights["lm_head.weight"], head)
    with torch.inference_mode():
        theirs = model_of(folder, weights)(torch.tensor([TOKENS])).logits[0, -1]
    _, logits = baked(folder, 8)
    assert (logits - theirs).abs().max() < 0.2 * theirs.std()


def test_a_cut_vocabulary_keeps_the_logits_of_a_quantised_head(folder: Path) -> None:
    torch.manual_seed(3)
    parts, _ = quantised(torch.randn(8192, 128), Form())
    rewrite(folder, lambda w: w.update({f"lm_head.{part}": parts[part] for part in parts}))
    configure(folder, tie_word_embeddings=False)
    whole = Checkpoint.open(folder)
    cut = cut_vocabulary(whole.tokenizer(), scripts=["Latin"])
    smaller = whole.cut_to(cut)
    assert smaller.has_own_head
    found = []
    tokens = whole.tokenizer().ids("The cat sat")
    for name, checkpoint, ids, asked in (
        ("whole", whole, tokens, cut.ids),
        ("cut", smaller, [cut.new_ids[id_] for id_ in tokens], range(len(cut.ids))),
    ):
        path = folder.parent / f"{name}.bloom"
        bake(checkpoint, path, bits=4)
        engine = NativeEngine(BakedModel(path), threads=1)
        (logits,) = engine.forward([Work(engine.new_sequence(), ids)])
        assert logits is not None
        found.append(logits.at(asked))
    assert found[0] == found[1]


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_every_code_with_every_zero_is_kept(folder: Path, version: str) -> None:
    offset = 1 if version == "gptq" else 0

    def change(weights: dict[str, Tensor]) -> None:
        codes = torch.arange(16).repeat(384, 8)
        zeros = torch.arange(384)[None] % (16 - offset)
        weights[f"{FUSED}.qweight"] = packed(codes.T, 4)
        weights[f"{FUSED}.qzeros"] = packed(zeros.T, 4).T.contiguous()
        scales = weights[f"{FUSED}.scales"].float()
        expected.append((scales * (codes.T - zeros - offset)).T)

    expected: list[Tensor] = []
    rewrite(folder, change)
    configure(folder, quantization_config=Form(checkpoint_format=version, sym=False).settings)
    assert torch.equal(values(folder)[f"{FUSED}.weight"], expected[0])
    errors, _ = baked(folder, 4)
    assert not any(error.largest for error in errors.values() if FUSED.endswith(error.name[:-7]))


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "3 bits": ({"bits": 3}, "GPTQ of 3 bits is not supported; 2, 4, 8 are"),
    "5 bits": ({"bits": 5}, "GPTQ of 5 bits"),
    "bits as text": ({"bits": "4"}, "GPTQ of '4' bits"),
    "no bits": ({"bits": None}, "GPTQ of None bits"),
    "true bits": ({"bits": True}, "GPTQ of True bits"),
    "groups of 0": ({"group_size": 0}, "group_size must be -1 or a number of columns, not 0"),
    "groups of -2": ({"group_size": -2}, "group_size must be"),
    "groups as text": ({"group_size": "128"}, "group_size must be"),
    "half a column": ({"group_size": 0.5}, "group_size must be"),
    "groups that are too small": ({"group_size": 64}, "groups of 64 of"),
    "groups that are too large": ({"group_size": -1}, "whole rows of"),
    "desc_act as text": ({"desc_act": "yes"}, "desc_act must be true or false"),
    "marlin": ({"checkpoint_format": "marlin"}, "checkpoint_format 'marlin' is not supported"),
    "planes": ({"checkpoint_format": "gptq_p"}, "'gptq_p' is not supported; gptq and gptq_v2"),
    "a list of formats": ({"checkpoint_format": ["gptq"]}, "checkpoint_format ['gptq']"),
    "two formats": ({"format": "gptq_v2"}, "checkpoint_format 'gptq' and 'gptq_v2'"),
    "marlin by a flag": ({"is_marlin_format": True}, "is_marlin_format is not supported"),
    "other words": ({"pack_dtype": "int16"}, "pack_dtype is not supported, and here it is 'int16'"),
    "rotated": ({"rotation": "hadamard"}, "rotation is not supported"),
    "with an adapter": ({"adapter": {"name": "lora"}}, "adapter is not supported"),
    "activations": ({"activation": {"mode": "w4afp8"}}, "activation is not supported"),
    "other bits for some": ({"dynamic": {"+:.*dense.*": {"bits": 8}}}, "dynamic gives '+:.*dense"),
    "the same without a sign": ({"dynamic": {".*dense.*": {"bits": 8}}}, "dynamic gives '.*dense"),
    "dynamic as text": ({"dynamic": "all"}, "dynamic gives 'all'"),
    "another method": ({"quant_method": "awq"}, "quantization_config (awq) is not supported"),
    "a list as method": ({"quant_method": ["gptq"]}, "quantization_config (['gptq'])"),
}


@pytest.mark.parametrize("where", ["config.json", "quantize_config.json"])
@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_mean_something_else_are_refused(folder: Path, case: str, where: str) -> None:
    changed, said = SETTINGS[case]
    settings = Form().settings | changed
    if where == "config.json":
        configure(folder, quantization_config=settings)
    else:
        configure(folder, quantization_config=None)
        (folder / where).write_text(json.dumps(settings))
        if "quant_method" in changed:
            said = "is of quantised weights"
    with pytest.raises(ModelError) as raised:
        Checkpoint.open(folder)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 800


def without(part: str) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        del weights[f"{FUSED}.{part}"]

    return change


def changed(part: str, how: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        weights[f"{FUSED}.{part}"] = how(weights[f"{FUSED}.{part}"]).contiguous()

    return change


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.flatten()[-1] = value
        return tensor

    return change


def unpacked(weights: dict[str, Tensor]) -> None:
    for name in list(weights):
        if name.endswith(PARTS):
            del weights[name]


DAMAGED: dict[str, tuple[Callable[[dict[str, Tensor]], None], str]] = {
    "no codes": (without("qweight"), "query_key_value' lacks its qweight"),
    "no zeros": (without("qzeros"), "query_key_value' lacks its qzeros"),
    "no scales": (without("scales"), "query_key_value' lacks its scales"),
    "no bias": (without("bias"), "lack h.0.self_attention.query_key_value.bias"),
    "fewer columns": (changed("qweight", lambda t: t[:-1]), "columns has [120] of I32"),
    "fewer rows": (changed("qweight", lambda t: t[:, :-8]), "query_key_value.qzeros' is [1, 48]"),
    "codes in one row": (changed("qweight", lambda t: t.flatten()), "qweight' is [6144]"),
    "no code": (changed("qweight", lambda t: t[:0]), "qweight' is [0, 384]"),
    "codes of 64 bits": (changed("qweight", Tensor.long), "of the type 'I64'"),
    "codes of 8 bits": (changed("qweight", lambda t: t.to(torch.uint8)), "of the type 'U8'"),
    "codes as floats": (changed("qweight", Tensor.float), "of the type 'F32'"),
    "more zeros": (changed("qzeros", lambda t: t.repeat(2, 1)), "qzeros' is [2, 48]"),
    "zeros as halves": (changed("qzeros", Tensor.half), "of the type 'F16'"),
    "scales the other way": (changed("scales", Tensor.t), "scales' is [384, 1]"),
    "scales as integers": (changed("scales", Tensor.int), "of the type 'I32'"),
    "an infinite scale": (changed("scales", with_one(float("inf"))), "scale that is not finite"),
    "no number as a scale": (changed("scales", with_one(float("nan"))), "scale that is not finite"),
    "a group too many": (changed("g_idx", with_one(1)), "a group that is not there (g_idx)"),
    "a group before the first": (changed("g_idx", with_one(-1)), "that is not there (g_idx)"),
    "a group far away": (changed("g_idx", with_one(2**31 - 1)), "that is not there (g_idx)"),
    "groups of fewer columns": (changed("g_idx", lambda t: t[:-1]), "g_idx' is [127]"),
    "groups in 64 bits": (changed("g_idx", Tensor.long), "of the type 'I64'"),
    "a zero of 16": (changed("qzeros", with_one(-1)), "save the model as gptq_v2"),
    "plain weights too": (
        lambda w: w.update({f"{FUSED}.weight": torch.zeros(384, 128)}),
        "is stored twice",
    ),
    "a norm with codes": (
        lambda w: w.update({
            f"transformer.ln_f.{part}": w[f"{FUSED}.{part}"].clone()
            for part in PARTS
        }),
        "is stored twice",
    ),
    "a matrix of no BLOOM": (
        lambda w: w.update({
            f"transformer.h.0.mlp.gate.{part}": w[f"{FUSED}.{part}"].clone()
            for part in PARTS
        }),
        "mlp.gate.qweight' is not a tensor of a BLOOM",
    ),
    "nothing quantised": (unpacked, "no qweight is there"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_folders_are_refused_by_name(folder: Path, case: str) -> None:
    change, said = DAMAGED[case]
    rewrite(folder, change)
    with pytest.raises(ModelError) as raised:
        bake(Checkpoint.open(folder), folder.parent / "m.bloom")
    assert said in str(raised.value)
    assert len(str(raised.value)) < 800
    assert not list(folder.parent.glob("m.bloom*"))


def test_columns_by_activations_need_their_groups(folder: Path) -> None:
    configure(folder, quantization_config=Form(desc_act=True).settings)
    Checkpoint.open(folder)
    rewrite(folder, without("g_idx"))
    with pytest.raises(ModelError, match="lacks its g_idx, and desc_act is true"):
        Checkpoint.open(folder)


def test_a_model_of_another_shape_is_refused(folder: Path) -> None:
    configure(folder, hidden_size=96)
    with pytest.raises(ModelError, match="config.json asks for"):
        Checkpoint.open(folder)


def test_settings_beside_plain_weights_are_left_alone(random_bloom: Path, tmp_path: Path) -> None:
    """transformers does not read quantize_config.json."""
    folder = tmp_path / "bloom"
    shutil.copytree(random_bloom, folder)
    (folder / "quantize_config.json").write_text(json.dumps(Form(bits=3).settings))
    assert Checkpoint.open(folder).gptq is None
