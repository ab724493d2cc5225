"""Baking: from every form of checkpoint to the same bytes, whole or not at all."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.baked.bake import bake, bake_tokenizer_only
from model.baked.cache import baked_copy
from model.baked.file import BakedModel
from model.baked.format import Header
from model.baked.source import open_tokenizer
from model.checkpoint.folder import Checkpoint
from model.errors import ModelError
from model.load import load
from model.text.tokenizer import Tokenizer
from tests.model.baked.sections import tensors_and_tokenizer


@pytest.fixture
def copy(random_bloom: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_bloom, tmp_path / "bloom"))


@pytest.fixture
def baked(random_bloom: Path, tmp_path: Path) -> Path:
    path = tmp_path / "m.bloom"
    bake(Checkpoint.open(random_bloom), path)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_bin_and_safetensors_bake_to_the_same(
    copy: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    weights = {
        name: value.to(dtype) for name, value in load_file(copy / "model.safetensors").items()
    }
    save_file(weights, copy / "model.safetensors")
    bake(Checkpoint.open(copy), tmp_path / "a.bloom")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    bake(Checkpoint.open(copy), tmp_path / "b.bloom")
    a, b = (BakedModel(tmp_path / name) for name in ("a.bloom", "b.bloom"))
    assert tensors_and_tokenizer(a) == tensors_and_tokenizer(b)
    sources = [model.metadata["source"] for model in (a, b)]
    type_ = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
    assert sources == [f"{type_} in safetensors", f"{type_} in .bin files"]
    assert dict(a.metadata) | {"source": sources[1]} == b.metadata


def test_errors_are_small_and_told(random_bloom: Path, tmp_path: Path) -> None:
    limits = {8: 0.01, 4: 0.11}
    for bits, limit in limits.items():
        path = tmp_path / f"{bits}.bloom"
        errors = bake(Checkpoint.open(random_bloom), path, bits=bits)
        assert len(errors) == 1 + 4 * 3
        assert all(0 < error.relative < limit for error in errors)
        assert len(BakedModel(path).metadata["errors"]) == len(errors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused(copy: Path, tmp_path: Path, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.dense_4h_to_h.weight"))
    weights[name][3, 5] = value
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"dense_4h_to_h\.weight holds a value"):
        bake(Checkpoint.open(copy), tmp_path / "m.bloom")
    assert not list(tmp_path.glob("m.bloom*")), "nothing of a failed baking is left"


def test_a_former_file_stays_until_the_new_one_is_whole(
    copy: Path, baked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = baked.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(ModelError, match="full"):
        bake(Checkpoint.open(copy), baked)
    assert baked.read_bytes() == before
    assert [path.name for path in baked.parent.glob("m.bloom*")] == ["m.bloom"]


@pytest.mark.parametrize(
    ("at", "patch", "words"),
    [
        (0, b"GGUF", "not a baked model"),
        (8, b"\x63", "version 99"),
        (12, b"\x01\x02\x03\x04", "byte order"),
        (64, b"\xff", "header is damaged"),
    ],
)
def test_a_damaged_header_is_a_sentence(baked: Path, at: int, patch: bytes, words: str) -> None:
    data = bytearray(baked.read_bytes())
    data[at : at + len(patch)] = patch
    baked.write_bytes(data)
    with pytest.raises(ModelError, match=words):
        BakedModel(baked)


def test_a_file_that_was_cut_off_is_a_sentence(baked: Path) -> None:
    whole = baked.read_bytes()
    for size in (0, 10, 200, 5000, len(whole) - 1):
        baked.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"m\.bloom"):
            BakedModel(baked)


def test_verifying_finds_a_single_bit(baked: Path) -> None:
    BakedModel(baked).verify()
    data = bytearray(baked.read_bytes())
    data[-len(data) // 2] ^= 1
    baked.write_bytes(data)
    with pytest.raises(ModelError, match="checksum"):
        BakedModel(baked).verify()


def test_a_description_that_is_damaged_is_refused(baked: Path) -> None:
    header = Header.from_buffer_copy(baked.read_bytes())
    data = bytearray(baked.read_bytes())
    data[header.metadata_offset] = ord("x")
    baked.write_bytes(data)
    with pytest.raises(ModelError, match="description"):
        load(baked)


def test_the_tokenizer_can_be_taken_out_of_a_baked_file(
    random_bloom: Path, baked: Path, tmp_path: Path
) -> None:
    bake_tokenizer_only(random_bloom, tmp_path / "of_folder.bloom")
    bake_tokenizer_only(baked, tmp_path / "of_file.bloom")
    of_file = BakedModel(tmp_path / "of_file.bloom")
    of_folder = BakedModel(tmp_path / "of_folder.bloom")
    sections = [ctypes.string_at(*each.tokenizer_section) for each in (of_file, of_folder)]
    assert sections[0] == sections[1]
    assert of_file.metadata["license"] == of_folder.metadata["license"]
    damaged = bytearray(baked.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    baked.write_bytes(damaged)
    with pytest.raises(ModelError, match="checksum"):
        bake_tokenizer_only(baked, tmp_path / "of_damaged.bloom")


def test_the_tokenizer_can_be_baked_alone(demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.bloom"
    bake_tokenizer_only(demo, path)
    model = BakedModel(path)
    model.verify()
    text = "Hello, 你好。"
    assert open_tokenizer(path).encode(text) == Tokenizer.open(demo).encode(text)
    with pytest.raises(ModelError, match="only a tokenizer"):
        load(path)


def test_a_checkpoint_that_changed_is_baked_anew(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = baked_copy(copy)
    assert baked_copy(copy) == first
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values()))[0] += 1
    save_file(weights, copy / "model.safetensors")
    second = baked_copy(copy)
    assert second != first
    assert baked_copy(copy, bits=4) not in (first, second)


def test_a_cache_that_cannot_be_written_is_a_sentence(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="pibloom bake"):
        baked_copy(copy)


def test_baking_holds_no_more_than_a_tensor_and_a_bit(tmp_path: Path) -> None:
    """A model of 400 MB, whose largest tensor has 32 MB, within 200 MB more than Python takes."""
    code = f"""
import json, resource, struct
from pathlib import Path
from model.baked.bake import bake
from model.checkpoint.folder import Checkpoint
from model.config import BloomConfig
from model.names import default_model
folder = Path({str(tmp_path)!r})
config = json.loads((default_model() / "config.json").read_text())
config |= {{"hidden_size": 1024, "n_layer": 8, "n_head": 16}}
(folder / "config.json").write_text(json.dumps(config))
(folder / "tokenizer.json").write_bytes((default_model() / "tokenizer.json").read_bytes())
table, at = {{}}, 0
for name, shape in BloomConfig.from_dict(config).shapes().items():
    size = 4 * (shape[0] * shape[1] if len(shape) == 2 else shape[0])
    table[name] = {{"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}}
    at += size
header = json.dumps(table).encode()
with (folder / "model.safetensors").open("wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    file.truncate(8 + len(header) + at)
def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before, most = private(), 0
def watch(name, done, total):
    global most
    most = max(most, private())
bake(Checkpoint.open(folder), folder / "m.bloom", progress=watch)
assert most > 0
print((most - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200


def test_two_bakes_of_one_name_do_not_disturb_each_other(demo: Path, tmp_path: Path) -> None:
    """Two containers that share a folder are both process 1."""
    path = tmp_path / "m.bloom"
    bake(Checkpoint.open(demo), path)
    right = path.read_bytes()
    path.unlink()
    slow, fast = threading.Event(), threading.Event()

    def wait(name: str, done: int, total: int) -> None:
        if done:
            slow.set()
            fast.wait(30)

    other = threading.Thread(
        target=bake, args=(Checkpoint.open(demo), path), kwargs={"progress": wait}
    )
    other.start()
    assert slow.wait(30)
    bake(Checkpoint.open(demo), path)
    assert path.read_bytes() == right
    fast.set()
    other.join(30)
    assert path.read_bytes() == right
    assert [each.name for each in tmp_path.iterdir()] == ["m.bloom"]


def test_a_shape_that_could_not_be_opened_is_refused_before_any_work(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    for name, value in (("seq_length", 3_000_000), ("layer_norm_epsilon", 1e-46)):
        (copy / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(ModelError, match="max_context|layer_norm_epsilon"):
            Checkpoint.open(copy)


def test_a_copy_that_was_cut_short_is_baked_anew(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    baked = baked_copy(copy)
    os.truncate(baked, 5000)
    assert baked_copy(copy) == baked
    BakedModel(baked).verify()


def test_a_pipe_is_no_model_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.bloom")
    with pytest.raises(ModelError, match="no file"):
        BakedModel(tmp_path / "m.bloom")


def test_a_header_lives_longer_than_its_file(baked: Path) -> None:
    """It would be read from where nothing is mapped any more, which ends the process."""
    code = (
        "import sys; from pathlib import Path; from model.baked.file import BakedModel;"
        "print(BakedModel(Path(sys.argv[1])).header.layers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(baked)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{BakedModel(baked).config.layers}\n")
