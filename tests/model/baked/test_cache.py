"""The cache of baked copies: always what the folder holds now, and nothing left behind."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.baked import cache as store
from model.baked.bake import bake
from model.baked.cache import baked_copy, cache_folder
from model.baked.file import BakedModel
from model.baked.partial import PARTIAL
from model.checkpoint.folder import Checkpoint
from model.errors import ModelError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pibloom"


@pytest.fixture
def folder(random_bloom: Path, demo: Path, tmp_path: Path) -> Path:
    """A checkpoint with every file that a bake may read."""
    folder = Path(shutil.copytree(random_bloom, tmp_path / "bloom"))
    (folder / "generation_config.json").write_text('{"temperature": 0.7, "eos_token_id": 2}')
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    (folder / "added_tokens.json").write_text('{"<pad>": 3}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def fresh(folder: Path, tmp_path: Path, bits: int = 8) -> bytes:
    """What baking the folder gives now."""
    path = tmp_path / "fresh.bloom"
    bake(Checkpoint.open(folder), path, bits=bits)
    return path.read_bytes()


def swap(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file in place; its size and its modification time stay as they were."""
    assert len(old) == len(new)
    data, status = path.read_bytes(), path.stat()
    assert old in data
    with path.open("r+b") as file:
        file.write(data.replace(old, new, 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def flip_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    end = path.read_bytes()[-64:]
    swap(path, end, bytes(64))


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": flip_weight,
    "config": lambda f: swap(f / "config.json", b'"seq_length": 128', b'"seq_length": 127'),
    "generation": lambda f: swap(f / "generation_config.json", b"0.7", b"0.6"),
    "ends": lambda f: swap(f / "generation_config.json", b'id": 2', b'id": 3'),
    "tokenizer": lambda f: swap(f / "tokenizer.json", b'"version": "1.0"', b'"version": "1.1"'),
    "template": lambda f: swap(f / "chat_template.jinja", b"User", b"Huma"),
    "tokenizer's configuration": lambda f: swap(f / "tokenizer_config.json", b"1024", b"1025"),
    "special tokens": lambda f: swap(f / "special_tokens_map.json", b"eos", b"bos"),
    "added tokens": lambda f: swap(f / "added_tokens.json", b"pad", b"pod"),
    "licence": lambda f: swap(f / "README.md", b"mit", b"isc"),
}


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_other_bytes_of_the_same_size_and_time_are_another_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, settled: bool
) -> None:
    if settled:
        monkeypatch.setattr(store, "_SETTLED_NS", -1)
    first = baked_copy(folder)
    CHANGES[change](folder)
    second = baked_copy(folder)
    assert second != first
    assert second.read_bytes() == fresh(folder, tmp_path)


def test_a_changed_file_and_its_first_bytes_again_give_the_first_copy(folder: Path) -> None:
    first = baked_copy(folder)
    path = folder / "generation_config.json"
    swap(path, b"0.7", b"0.6")
    assert baked_copy(folder) != first
    swap(path, b"0.6", b"0.7")
    assert baked_copy(folder) == first


def test_bits_and_the_code_that_bakes_are_part_of_the_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {baked_copy(folder, bits).name for bits in (8, 4)}
    monkeypatch.setattr(store, "_baker", lambda: "a newer piBLOOM")
    names |= {baked_copy(folder, bits).name for bits in (8, 4)}
    assert len(names) == 4
    assert baked_copy(folder, 4).read_bytes() == fresh(folder, tmp_path, 4)


def test_the_code_that_bakes_is_told_by_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    before = store._baker.__wrapped__()
    assert before == store._baker.__wrapped__()
    monkeypatch.setattr(store, "VERSION", 99)
    assert before != store._baker.__wrapped__()


def test_touched_and_copied_files_are_not_baked_anew(folder: Path, tmp_path: Path) -> None:
    first = baked_copy(folder)
    written = first.stat().st_mtime_ns
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert baked_copy(folder) == first
    other = Path(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name))
    assert baked_copy(other) == first
    assert first.stat().st_mtime_ns == written


def test_what_did_not_change_is_not_read_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SETTLED_NS", -1)
    read: list[str] = []
    digest = hashlib.file_digest

    def watch(file: object, kind: object) -> object:
        read.append(Path(file.name).name)  # type: ignore[attr-defined]
        return digest(file, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", watch)
    first = baked_copy(folder)
    assert "model.safetensors" in read
    read.clear()
    assert baked_copy(folder) == first
    assert read == []
    (folder / "config.json").touch()
    assert baked_copy(folder) == first
    assert read == ["config.json"]
    read.clear()
    for record in cache.glob("*.json"):
        record.write_text("[[[[")
    assert baked_copy(folder) == first
    assert "model.safetensors" in read


def test_a_file_that_just_changed_is_read_again(folder: Path, cache: Path) -> None:
    """It may change again within one tick of the file system's clock."""
    baked_copy(folder)
    (record,) = cache.glob("*.json")
    assert json.loads(record.read_text())["files"] == {}


def test_copies_of_what_a_folder_held_before_are_deleted(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    twin = Path(shutil.copytree(folder, tmp_path / "twin" / "bloom"))
    kept = {baked_copy(other), baked_copy(twin), baked_copy(folder, 4)}
    assert baked_copy(folder) == baked_copy(twin)
    swap(folder / "config.json", b'"seq_length": 128', b'"seq_length": 127')
    kept.add(baked_copy(folder))
    assert set(cache.glob("*.bloom")) == kept
    swap(folder / "config.json", b'"seq_length": 127', b'"seq_length": 126')
    former = baked_copy(folder)
    (cache / f"bloom-{'0' * 12}-w8.bloom").write_bytes(b"of an older piBLOOM")
    (cache / "mine.bloom").write_bytes(b"of somebody")
    swap(folder / "config.json", b'"seq_length": 126', b'"seq_length": 125')
    now = baked_copy(folder)
    assert not former.exists()
    names = {path.name for path in cache.glob("*.bloom")}
    assert now.name in names
    assert "mine.bloom" in names
    assert f"bloom-{'0' * 12}-w8.bloom" not in names


def test_a_folder_that_changes_while_it_is_baked_gives_no_copy(folder: Path, cache: Path) -> None:
    def change(name: str, done: int, total: int) -> None:
        (folder / "README.md").write_text(f"{done}")

    with pytest.raises(ModelError, match="was changed while it was baked"):
        baked_copy(folder, progress=change)
    assert not list(cache.glob("*.bloom"))


BAKING = """
import sys, time
from pathlib import Path
from model.baked.bake import bake
from model.checkpoint.folder import Checkpoint
from model.baked.cache import baked_copy
folder = Path(sys.argv[1])
def wait(name, done, total):
    if done:
        print("half", flush=True)
        time.sleep(60)
if len(sys.argv) > 2:
    bake(Checkpoint.open(folder), Path(sys.argv[2]), progress=wait)
else:
    baked_copy(folder, progress=wait)
"""


@pytest.fixture
def baking() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that bakes, and is in the middle of it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", BAKING, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


Baking = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_signal_leaves_no_partial_file(
    folder: Path, tmp_path: Path, cache: Path, baking: Baking, number: int, by_hand: bool
) -> None:
    output = tmp_path / "out" / "m.bloom"
    output.parent.mkdir()
    process = baking(folder, output) if by_hand else baking(folder)
    place = output.parent if by_hand else cache
    assert len(list(place.glob(f"*{PARTIAL}"))) == 1
    process.send_signal(number)
    assert process.wait(30) != 0
    assert not list(place.glob(f"*{PARTIAL}"))
    assert not list(place.glob("*.bloom"))


def test_a_killed_bakes_file_is_deleted_by_the_next_and_a_living_ones_is_not(
    folder: Path, tmp_path: Path, cache: Path, baking: Baking
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    killed, living = baking(folder), baking(other)
    killed.kill()
    killed.wait(30)
    assert len(list(cache.glob(f"*{PARTIAL}"))) == 2
    baked_copy(folder)
    (left,) = cache.glob(f"*{PARTIAL}")
    assert left.name.startswith("other-")
    living.kill()
    living.wait(30)
    baked_copy(folder)
    assert not list(cache.glob(f"*{PARTIAL}"))


def test_a_killed_bake_by_hand_leaves_nothing_to_the_next(
    folder: Path, tmp_path: Path, baking: Baking
) -> None:
    output, neighbour = tmp_path / "out" / "m.bloom", tmp_path / "out" / "n.bloom"
    output.parent.mkdir()
    living = baking(folder, neighbour)
    killed = [baking(folder, output) for _ in range(2)]
    for process in killed:
        process.kill()
        process.wait(30)
    bake(Checkpoint.open(folder), output)
    assert living.poll() is None
    assert {path.name.partition(".bloom")[0] for path in output.parent.iterdir()} == {"m", "n"}
    assert len(list(output.parent.glob(f"*{PARTIAL}"))) == 1


def test_a_read_only_cache_is_a_sentence(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    opened = Path.open

    def open_(path: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if set(mode) & set("wax+"):
            refuse()
        return opened(path, mode, *rest, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ModelError, match=r"cannot be written \(Read-only.*XDG_CACHE_HOME"):
        baked_copy(folder)


def test_a_read_only_cache_that_has_the_copy_serves_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = baked_copy(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store, "_lock", refuse)
    assert baked_copy(folder) == copy
    BakedModel(copy).verify()


def test_without_a_home_folder_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder().name == "pibloom"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize("name", ["b" * 200, "a b/é ü 你好", "a-0123456789ab-w8.bloom", "$(x);'"])
def test_a_folder_of_any_name_is_cached(folder: Path, tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.parent.mkdir(exist_ok=True)
    copy = baked_copy(Path(shutil.copytree(folder, odd)))
    assert copy.exists()
    assert copy.name.isascii()
    assert baked_copy(odd) == copy


def test_a_start_with_a_copy_needs_no_torch(folder: Path) -> None:
    """A pickle's names need not be read again to find its copy."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    copy = baked_copy(folder)
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None
from model.baked.cache import baked_copy
print(baked_copy(Path({str(folder)!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(copy)


def test_time_stamps_in_the_future_are_not_remembered(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 10_000
    for path in folder.iterdir():
        os.utime(path, (later, later))
    monkeypatch.setattr(store, "_SETTLED_NS", 0)
    baked_copy(folder)
    (record,) = cache.glob("*.json")
    assert json.loads(record.read_text())["files"] == {}
