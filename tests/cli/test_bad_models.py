"""What cannot be used as a model gets one sentence and exit code 3, and leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.names import default_model

ROOT = Path(__file__).parents[2]
INDEX = "model.safetensors.index.json"


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def truncated_tokenizer(folder: Path) -> None:
    os.truncate(folder / "tokenizer.json", 9_999)


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 16843640\n"
    (folder / "model.safetensors").write_text(text)


def llama(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 512}))


def lacks_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    table = {"transformer.ln_f.weight": "first.safetensors", "x": "second.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))


def shard_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "../../x.safetensors"}}))


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a truncated download": (truncated, "is truncated or not a safetensors file"),
    "a truncated tokenizer": (truncated_tokenizer, "tokenizer.json cannot be read as JSON"),
    "a pointer of git lfs": (pointer, "is only a pointer to the weights"),
    "another model": (llama, "expected a BLOOM (model_type 'bloom'), found 'llama'"),
    "weights of another size": (wider, "is [8192, 256], but config.json asks for [8192, 512]"),
    "a shard is missing": (lacks_a_shard, "second.safetensors is missing"),
    "a shard elsewhere": (shard_elsewhere, INDEX),
    "nothing": (emptied, "config.json is missing"),
}
NAMES = ["../nowhere", "a/../b", "../bigscience/bloomz-560m", "bigscience/bloomz-560m@../../x"]


def refusal(place: Path, *arguments: object) -> str:
    """Run a command in an empty folder; check that it refused, and return what it said."""
    working = place / "working"
    working.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=working,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not list(working.iterdir())
    left = [path.name for path in (place / "cache").rglob("*") if path.is_file()]
    assert not [name for name in left if ".bloom" in name]
    return done.stderr


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_no_whole_bloom_is_not_baked(tmp_path: Path, kind: str) -> None:
    change, said = FOLDERS[kind]
    folder = Path(shutil.copytree(default_model(), tmp_path / "bloom"))
    change(folder)
    assert said in refusal(tmp_path, "bake", folder)


@pytest.mark.parametrize(
    "command", [("inspect",), ("generate", "Hi", "--model"), ("up", "--model")]
)
@pytest.mark.parametrize("kind", ["a truncated download", "another model"])
def test_it_is_refused_by_each_command(tmp_path: Path, command: tuple[str, ...], kind: str) -> None:
    change, said = FOLDERS[kind]
    folder = Path(shutil.copytree(default_model(), tmp_path / "bloom"))
    change(folder)
    assert said in refusal(tmp_path, *command, folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_neither_pulled_nor_baked(tmp_path: Path, name: str) -> None:
    assert f"{name} is not there" in refusal(tmp_path, "bake", name)
    assert "is not the name of a" in refusal(tmp_path, "pull", name)


def test_a_baked_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    baked = tmp_path / "model.bloom"
    command = [sys.executable, "-m", "cli.main", "bake", str(default_model())]
    subprocess.run(
        [*command, "-o", str(baked)], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    os.truncate(baked, baked.stat().st_size - 500)
    for use in (("inspect", baked), ("generate", "Hi", "--model", baked), ("up", "--model", baked)):
        assert "it was cut off, or is still being copied" in refusal(tmp_path, *use)
    said = refusal(tmp_path, "bake", baked, "--tokenizer-only", "-o", "tokenizer.bloom")
    assert "it was cut off" in said
