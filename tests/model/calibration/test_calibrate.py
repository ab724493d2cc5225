"""Calibrating a checkpoint: what is run, written, kept and refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomForCausalLM

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.calibration import calibrate as module
from model.calibration.block import attention
from model.calibration.calibrate import Calibration, calibrated
from model.calibration.folder import folder_for, remove_results
from model.calibration.results import Results
from model.calibration.rounding import Rounded
from model.calibration.tokens import windows_of, written_by
from model.checkpoint.adapter import Adapter
from model.checkpoint.folder import Checkpoint
from model.checkpoint.gptq import GptqSettings
from model.errors import ModelError
from model.vocabulary.cut import cut_vocabulary
from tests.model.baked.sections import tensors_and_tokenizer

ROOT = Path(__file__).parents[3]
_SUMS = {"relative", "weights_before", "outputs_before", "outputs"}  # to the last digit or nearly


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def text(demo: Path) -> list[int]:
    tokenizer = Checkpoint.open(demo).tokenizer()
    ids: list[int] = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        ids += tokenizer.ids(page.read_text(encoding="utf-8"))
        if len(ids) > 2200:
            return ids[:2200]
    raise AssertionError("too little text")


def baked_on(folder: Path, text: list[int], output: Path, bits: int = 4) -> BakedModel:
    checkpoint = Checkpoint.open(folder)
    with calibrated(checkpoint, output, bits=bits, text=text, source="a text") as calibration:
        bake(checkpoint, output, bits=bits, calibrated=calibration)
    return BakedModel(output)


@pytest.fixture(scope="session")
def calibrated_file(
    random_bloom: Path, text: list[int], tmp_path_factory: pytest.TempPathFactory
) -> BakedModel:
    return baked_on(random_bloom, text, tmp_path_factory.mktemp("calibrated") / "m.bloom")


def test_the_file_tells_of_it_and_nothing_is_left(calibrated_file: BakedModel) -> None:
    assert [path.name for path in calibrated_file.path.parent.iterdir()] == ["m.bloom"]
    card = calibrated_file.metadata["calibration"]
    assert card["source"] == "a text"
    assert card["tokens"] == 17 * 128
    assert 0 < card["error_after"] < 0.8 * card["error_before"]
    errors = [error for error in calibrated_file.metadata["errors"] if "outputs" in error]
    assert len(errors) == 3 * 4
    for error in errors:
        assert 0 < error["outputs"] < error["outputs_before"] < 0.2
        assert 0 < error["weights_before"] < error["relative"] < 0.2


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["random_bloom", "untied_bloom"])
def test_inputs_are_transformers_own(
    name: str, bits: int, text: list[int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Rounded so finely that it changes nothing, the layers' inputs are those of the model."""
    folder = request.getfixturevalue(name)
    seen: dict[str, torch.Tensor] = {}
    exact = module._Layers._round

    def record(
        self: module._Layers, inputs: torch.Tensor, name: str
    ) -> tuple[Rounded, dict[str, float]]:
        seen[name] = inputs.clone()
        return exact(self, inputs, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Layers, "_round", record)
        patch.setattr(
            module._Layers,
            "_linear",
            lambda self, inputs, module: _unrounded(self, inputs, module, record),
        )
        checkpoint = Checkpoint.open(folder)
        with calibrated(checkpoint, tmp_path / "m.bloom", bits=bits, text=text):
            pass
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    theirs: dict[str, list[torch.Tensor]] = {}
    for at, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and at != "lm_head":
            key = at.removeprefix("transformer.") + ".weight"
            theirs[key] = []
            layer.register_forward_pre_hook(
                lambda _, given, key=key: theirs[key].append(given[0].flatten(0, 1))
            )
    with torch.inference_mode():
        for window in windows_of(text, checkpoint.config.max_context):
            model(torch.tensor([window]))
    assert seen.keys() == theirs.keys()
    for key, parts in theirs.items():
        torch.testing.assert_close(seen[key], torch.cat(parts), rtol=2e-3, atol=2e-4)


def _unrounded(
    layers: module._Layers, inputs: torch.Tensor, at: str, record: object
) -> torch.Tensor:
    """Do what `_linear` does with the matrix as it is in the checkpoint."""
    record(layers, inputs, f"{at}.weight")  # type: ignore[operator]
    layers.outputs.append((0.0, 0.0, 1.0))
    weight = torch.cat(list(layers._rows(f"{at}.weight")))
    return torch.addmm(layers._vector(f"{at}.bias"), inputs, weight.T)


def test_the_file_holds_the_codes_that_were_found(
    random_bloom: Path, text: list[int], tmp_path: Path
) -> None:
    """Baked with its own values as a checkpoint, each matrix keeps them: no second rounding."""
    checkpoint, output = Checkpoint.open(random_bloom), tmp_path / "m.bloom"
    with calibrated(checkpoint, output, bits=4, text=text) as calibration:
        errors = bake(checkpoint, output, bits=4, calibrated=calibration)
        again = bake(checkpoint, tmp_path / "n.bloom", bits=4, calibrated=_Unnamed(calibration))
    assert [error.relative for error in again if error.name in calibration.errors] == [0.0] * 12
    assert all(
        error == calibration.errors[error.name]
        for error in errors
        if error.name in calibration.errors
    )
    a, b = (BakedModel(tmp_path / name) for name in ("m.bloom", "n.bloom"))
    assert tensors_and_tokenizer(a) == tensors_and_tokenizer(b)


class _Unnamed:
    """A calibration that does not say what it cost, so that a bake counts it."""

    def __init__(self, calibration: Calibration) -> None:
        self.card, self.rows = calibration.card, calibration.rows
        self.errors = _Counted(calibration.errors)


class _Counted(dict):  # type: ignore[type-arg]
    def get(self, name: str, default: object = None) -> object:
        return default


def test_a_killed_bake_goes_on_and_comes_to_the_same(
    random_bloom: Path, text: list[int], calibrated_file: BakedModel, tmp_path: Path
) -> None:
    output = tmp_path / "m.bloom"
    (tmp_path / "text").write_text(json.dumps(text))
    program = (
        "import json, sys, time, pathlib, torch\n"
        "torch.set_num_threads(1)\n"
        "from model.calibration.calibrate import calibrated\n"
        "from model.checkpoint.folder import Checkpoint\n"
        "folder, text, output = map(pathlib.Path, sys.argv[1:])\n"
        "def slow(name, done, total):\n"
        "    if name.startswith('h.1.mlp.dense_4h'): print('here', flush=True); time.sleep(60)\n"
        "with calibrated(Checkpoint.open(folder), output, bits=4,\n"
        "        text=json.loads(text.read_text()), source='a text', progress=slow): pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, random_bloom, tmp_path / "text", output],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"here\n"
    with pytest.raises(ModelError, match="another process is calibrating"):
        baked_on(random_bloom, text, output)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    folder = folder_for(output)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.codes")}
    assert len(kept) == 7
    # One that is damaged, or cut short, is made again.
    damaged, cut, other, *whole = sorted(kept)
    head = other.read_bytes()
    other_head = head.replace(b'"outputs": 0.0', b'"outputs": 0.1')
    assert other_head != head
    other.write_bytes(other_head)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    cut.write_bytes(cut.read_bytes()[:100])
    seen: list[dict[Path, int]] = []
    checkpoint = Checkpoint.open(random_bloom)
    with calibrated(checkpoint, output, bits=4, text=text, source="a text") as calibration:
        seen.append({path: path.stat().st_mtime_ns for path in folder.glob("*.codes")})
        bake(checkpoint, output, bits=4, calibrated=calibration)
    assert {path: seen[0][path] for path in whole} == {path: kept[path] for path in whole}
    assert not folder.exists()
    again = BakedModel(output)
    for one, same in zip(again.metadata["errors"], calibrated_file.metadata["errors"], strict=True):
        assert one == same | {key: pytest.approx(same[key]) for key in same if key in _SUMS}
    assert tensors_and_tokenizer(again) == tensors_and_tokenizer(calibrated_file)


def test_an_adapter_is_merged_before(random_bloom: Path, text: list[int], tmp_path: Path) -> None:
    """With an adapter, the file holds what a checkpoint with its weights in it would give."""
    name = "h.1.self_attention.dense"
    weights = load_file(random_bloom / "model.safetensors")
    a, b = torch.randn(2, 96) * 0.1, torch.randn(96, 2) * 0.1
    key = next(key for key in weights if key.endswith(f"{name}.weight"))
    merged = Path(shutil.copytree(random_bloom, tmp_path / "merged"))
    save_file(weights | {key: weights[key] + 2 * (b @ a)}, merged / "model.safetensors")
    folder = tmp_path / "lora"
    folder.mkdir()
    described = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    prefix = f"base_model.model.transformer.{name}"
    parts = {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    save_file(parts, folder / "adapter_model.safetensors")
    checkpoint, output = Checkpoint.open(random_bloom), tmp_path / "m.bloom"
    adapter = Adapter.open(folder, checkpoint.config)
    with calibrated(checkpoint, output, bits=4, text=text, adapter=adapter) as calibration:
        bake(checkpoint, output, bits=4, adapter=adapter, calibrated=calibration)
    theirs = baked_on(merged, text, tmp_path / "n.bloom").metadata
    ours = BakedModel(output).metadata
    assert ours["adapter"]["name"] == "lora"
    assert ours["calibration"]["error_after"] == pytest.approx(
        theirs["calibration"]["error_after"], rel=0.01
    )
    for one, other in zip(ours["errors"], theirs["errors"], strict=True):
        assert one["relative"] == pytest.approx(other["relative"], rel=0.02)


def test_a_cut_model_is_calibrated_too(demo: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(demo)
    cut = cut_vocabulary(whole.tokenizer(), scripts=("Latin",), texts=(), always=set())
    checkpoint = whole.cut_to(cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.calibration.tokens.WINDOW", 16)
        with calibrated(checkpoint, tmp_path / "m.bloom", bits=4) as calibration:
            bake(checkpoint, tmp_path / "m.bloom", bits=4, calibrated=calibration)
    metadata = BakedModel(tmp_path / "m.bloom").metadata
    assert metadata["cut"]["kept"] == ["Latin"]
    assert metadata["calibration"]["tokens"] == 16 * 16


def test_what_is_quantised_already_is_refused(tmp_path: Path, random_bloom: Path) -> None:
    settings = GptqSettings(4, 64, False, 1)
    checkpoint = replace(Checkpoint.open(random_bloom), gptq=settings)
    with (
        pytest.raises(ModelError, match="is quantised already .GPTQ, 4 bits"),
        calibrated(checkpoint, tmp_path / "m.bloom", bits=4),
    ):
        pass


def test_results_of_another_input_are_not_used(
    random_bloom: Path, text: list[int], tmp_path: Path
) -> None:
    output = tmp_path / "m.bloom"

    def stopped(text: list[int], bits: int) -> list[int]:
        """Return when each matrix that is there was written, once the third begins."""

        def stop(name: str, done: int, total: int) -> None:
            if name.startswith("h.0.mlp.dense_h_"):
                raise InterruptedError

        with (
            pytest.raises(ModelError),
            calibrated(Checkpoint.open(random_bloom), output, bits=bits, text=text, progress=stop),
        ):
            pass
        return sorted(path.stat().st_mtime_ns for path in folder_for(output).glob("*.codes"))

    first = stopped(text, 4)
    assert len(first) == 2
    assert stopped(text, 4) == first
    assert not set(stopped(text, 8)) & set(first)
    second = stopped(text, 8)
    assert not set(stopped(text[1:], 8)) & set(second)
    remove_results(output)
    assert not folder_for(output).exists()


def test_a_text_that_is_too_short_is_refused(
    random_bloom: Path, text: list[int], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"has 2047 tokens; at least 2048 are needed"):
        baked_on(random_bloom, text[:2047], tmp_path / "m.bloom")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_left_alone(
    random_bloom: Path, text: list[int], tmp_path: Path
) -> None:
    output = tmp_path / "m.bloom"
    letter = folder_for(output) / "letter.txt"
    letter.parent.mkdir()
    letter.write_text("dear")
    with pytest.raises(ModelError, match="is not a calibration's folder; move it away"):
        baked_on(random_bloom, text, output)
    remove_results(output)
    assert letter.read_text() == "dear"


def test_windows_are_from_all_over_a_text() -> None:
    windows = windows_of(range(100_000), 2048)
    assert len(windows) == 16
    assert {len(window) for window in windows} == {512}
    assert windows[0][0] == 0
    assert windows[-1][-1] == 99_999
    assert sum(map(len, windows_of(range(2048), 128))) == 2048


def test_a_model_writes_the_same_each_time(demo: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.calibration.tokens.WINDOW", 24)
        path = tmp_path / "demo.bloom"
        bake(Checkpoint.open(demo), path)
        first, second = (written_by(BakedModel(path)) for _ in range(2))
    assert first == second
    assert len(first) == 16
    assert {len(text) for text in first} == {24}
    assert len(set(map(tuple, first))) > 8


def test_without_a_text_the_model_writes_it(random_bloom: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.bloom"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.calibration.tokens.WINDOW", 24)
        checkpoint = Checkpoint.open(random_bloom)
        with calibrated(checkpoint, output, bits=8) as calibration:
            bake(checkpoint, output, bits=8, calibrated=calibration)
    card = BakedModel(output).metadata["calibration"]
    assert (card["tokens"], card["source"]) == (16 * 24, "what the model writes itself")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bloom"]


def test_a_full_disk_is_told(random_bloom: Path, text: list[int], tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "save", full)
        with pytest.raises(ModelError, match="calibration, where .* No space left on device"):
            baked_on(random_bloom, text, tmp_path / "m.bloom")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bloom.calibration"]


def test_a_later_token_changes_nothing_before_it() -> None:
    torch.manual_seed(0)
    fused = torch.randn(9, 3 * 6 * 4)
    whole = attention(fused, 6)
    torch.testing.assert_close(attention(fused[:5], 6), whole[:5])
