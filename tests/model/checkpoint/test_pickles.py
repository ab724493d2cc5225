"""Pickled weights, read by a process of their own: right, or a sentence, whatever is in them."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.checkpoint.pickled import Unpickler
from model.errors import ModelError
from tests.model.baked.sections import tensors_and_tokenizer
from tests.ports import free_port

Weights = dict[str, Tensor]
NAME = "transformer.h.0.mlp.dense_h_to_4h.weight"
EMBEDDING = "transformer.word_embeddings.weight"


class Shared(Unpickler):
    """One process for all tests, as each takes seconds to import torch; anew when one ended it."""

    kept: Unpickler | None = None

    def __init__(self) -> None:
        super().__init__()
        if Shared.kept is not None:
            self._process = Shared.kept._process
        Shared.kept = self

    def __exit__(self, *raised: object) -> None:
        # One that was listing files can be asked again; one that was read from may not be.
        if not raised or (self._process and self._process.poll() is not None):
            super().__exit__()


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    yield
    if Shared.kept is not None:
        Unpickler.__exit__(Shared.kept)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.weight_files.Unpickler", Shared)
    monkeypatch.setattr("model.checkpoint.weights.Unpickler", Shared)


@pytest.fixture
def folder(random_bloom: Path, tmp_path: Path) -> Path:
    """A checkpoint folder without weights."""
    folder = Path(shutil.copytree(random_bloom, tmp_path / "bloom"))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="session")
def weights(random_bloom: Path) -> Weights:
    return load_file(random_bloom / "model.safetensors")


@pytest.fixture(scope="session")
def truth(random_bloom: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the weights bake to, by way of safetensors."""
    folder = Path(shutil.copytree(random_bloom, tmp_path_factory.mktemp("truth") / "bloom"))
    return baked(folder)


def baked(folder: Path) -> bytes:
    """Bake a folder; the tensors and the tokenizer, as the card names the kind of file."""
    path = folder.parent / "m.bloom"
    bake(Checkpoint.open(folder), path)
    return tensors_and_tokenizer(BakedModel(path))


def legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def cut(save: Callable[[Weights, Path], None], weights: Weights, path: Path) -> None:
    save(weights, path)
    os.truncate(path, path.stat().st_size // 2)


def transposed(weights: Weights) -> Weights:
    return {n: w.t().contiguous().t() if w.ndim == 2 else w for n, w in weights.items()}


def views(weights: Weights) -> Weights:
    """All tensors are views of one storage, in the middle of it."""
    flat = torch.cat([torch.zeros(7), *(w.flatten() for w in weights.values())])
    at, found = 7, {}
    for name, weight in weights.items():
        found[name] = flat[at : at + weight.numel()].view(weight.shape)
        at += weight.numel()
    return found


FORMS: dict[str, Callable[[Weights, Path], None]] = {
    "an archive": torch.save,
    "the older format": legacy,
    "an ordered dictionary": lambda w, p: torch.save(OrderedDict(w), p),
    "with what torch notes of a module": lambda w, p: torch.save(_state(w), p),
    "parameters": lambda w, p: torch.save({n: torch.nn.Parameter(x) for n, x in w.items()}, p),
    "columns before rows": lambda w, p: torch.save(transposed(w), p),
    "columns before rows, in the older format": lambda w, p: legacy(transposed(w), p),
    "views of one storage": lambda w, p: torch.save(views(w), p),
    "an archive that is compressed": lambda w, p: _compressed(w, p),
    "of a machine of the other byte order": lambda w, p: _swapped(w, p),
    "double numbers": lambda w, p: torch.save({n: x.double() for n, x in w.items()}, p),
}


def _state(weights: Weights) -> OrderedDict[str, Tensor]:
    state = OrderedDict(weights)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


def _compressed(weights: Weights, path: Path) -> None:
    plain = io.BytesIO()
    torch.save(weights, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr(
            "archive/note", os.urandom(10_000_000)
        )  # so that nothing reaches beyond the end


def _swapped(weights: Weights, path: Path) -> None:
    plain = io.BytesIO()
    torch.save(weights, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("/byteorder"):
                data = b"big"
            elif "/data/" in name:
                numbers = array("I", data)
                numbers.byteswap()
                data = numbers.tobytes()
            new.writestr(name, data)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_bakes_to_the_same(
    folder: Path, weights: Weights, truth: bytes, form: str
) -> None:
    FORMS[form](weights, folder / "pytorch_model.bin")
    assert baked(folder) == truth


class Runs:
    """Runs a command where it is unpickled without care."""

    def __init__(self, function: object = os.system, *arguments: object) -> None:
        self.call: tuple[Any, ...] = function, arguments or ("touch pwned",)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _zip_of(code: bytes, path: Path, byteorder: bytes = b"little") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", code)
        archive.writestr("a/byteorder", byteorder)
        archive.writestr("a/version", b"3\n")
        archive.writestr("a/data/0", bytes(64))


def _other_byte_order(weights: Weights, path: Path) -> None:
    plain = io.BytesIO()
    torch.save(weights, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))


def _with(weights: Weights, value: object, name: str = NAME) -> dict[str, object]:
    return weights | {name: value}


HOSTILE: dict[str, Callable[[Weights, Path], object]] = {
    "empty": lambda w, p: p.write_bytes(b""),
    "one byte": lambda w, p: p.write_bytes(b"\x80"),
    "zeros": lambda w, p: p.write_bytes(bytes(4096)),
    "text": lambda w, p: p.write_bytes(b"<html>404</html>"),
    "a pointer": lambda w, p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
    "safetensors": lambda w, p: p.write_bytes(struct.pack("<Q", 2) + b"{}"),
    "a zip of nothing": lambda w, p: zipfile.ZipFile(p, "w").close(),
    "a zip of no pickle": lambda w, p: _zip_of(b"nothing", p),
    "code": lambda w, p: torch.save({"a": Runs()}, p),
    "code, older": lambda w, p: legacy({"a": Runs()}, p),
    "code, alone": lambda w, p: p.write_bytes(pickle.dumps(Runs())),
    "code, eval": lambda w, p: torch.save(Runs(eval, "open('pwned', 'w')"), p),
    "code, exec": lambda w, p: torch.save(Runs(exec, "open('pwned', 'w')"), p),
    "code, in a list": lambda w, p: torch.save([Runs()], p),
    "code, as a name": lambda w, p: torch.save({Runs(): 1}, p),
    "code, subprocess": lambda w, p: torch.save(Runs(subprocess.call, ["touch", "pwned"]), p),
    "nested lists": lambda w, p: _zip_of(b"\x80\x02" + b"(" * 500_000 + b"l." * 1, p),
    "deep dictionaries": lambda w, p: _zip_of(
        b"\x80\x02}" + b"K\x01}" * 99_999 + b"s" * 99_999 + b".", p
    ),
    "a long that needs memory": lambda w, p: _zip_of(b"\x80\x02\x8b\xff\xff\xff\x7f.", p),
    "a text that needs memory": lambda w, p: _zip_of(b"\x80\x02X\xff\xff\xff\x7f.", p),
    "memo out of bounds": lambda w, p: _zip_of(b"\x80\x02j\xff\xff\xff\xff.", p),
    "stack underflow": lambda w, p: _zip_of(b"\x80\x02ss.", p),
    "numbers that are not of the byte order they say": _other_byte_order,
    "no dictionary": lambda w, p: torch.save([1, 2], p),
    "a tensor": lambda w, p: torch.save(w[EMBEDDING], p),
    "None": lambda w, p: torch.save(None, p),
    "a dictionary of dictionaries": lambda w, p: torch.save({"model": w}, p),
    "numbers as names": lambda w, p: torch.save({1: w[EMBEDDING]}, p),
    "a number beside tensors": lambda w, p: torch.save(_with(w, 5, "step"), p),
    "on the device meta": lambda w, p: torch.save(_with(w, w[NAME].to("meta")), p),
    "all on the device meta": lambda w, p: torch.save({n: x.to("meta") for n, x in w.items()}, p),
    "on the device meta, older": lambda w, p: legacy(_with(w, w[NAME].to("meta")), p),
    "sparse": lambda w, p: torch.save(_with(w, w[NAME].to_sparse()), p),
    "sparse rows": lambda w, p: torch.save(_with(w, w[NAME].to_sparse_csr()), p),
    "quantised": lambda w, p: torch.save(
        _with(w, torch.quantize_per_tensor(w[NAME], 0.1, 0, torch.qint8)), p
    ),
    "complex": lambda w, p: torch.save(_with(w, w[NAME].to(torch.complex64)), p),
    "whole numbers": lambda w, p: torch.save(_with(w, w[NAME].to(torch.int8)), p),
    "truths": lambda w, p: torch.save(_with(w, w[NAME] > 0), p),
    "eight-bit floats": lambda w, p: torch.save(_with(w, w[NAME].to(torch.float8_e4m3fn)), p),
    "another shape": lambda w, p: torch.save(_with(w, w[NAME][:5].clone()), p),
    "a scalar": lambda w, p: torch.save(_with(w, torch.tensor(1.0)), p),
    "empty tensors": lambda w, p: torch.save(_with(w, torch.empty(0)), p),
    "a tensor is missing": lambda w, p: torch.save({n: x for n, x in w.items() if n != NAME}, p),
    "beyond its storage": lambda w, p: _patched(w, p),
    "not finite": lambda w, p: torch.save(_with(w, w[NAME] * torch.inf), p),
    "a name of 100,000 characters": lambda w, p: torch.save(_with(w, w[NAME], "n" * 100_000), p),
    "a name with lines": lambda w, p: torch.save(_with(w, w[NAME], "a\nb\x1b[2J"), p),
    "a name that is not Unicode": lambda w, p: torch.save(_with(w, w[NAME], "\ud800"), p),
    "cut off": lambda w, p: cut(torch.save, w, p),
    "cut off, older": lambda w, p: cut(legacy, w, p),
}


def _patched(weights: Weights, path: Path) -> None:
    """A tensor that says to be larger than its storage."""
    plain = io.BytesIO()
    torch.save({NAME: torch.zeros(3, 5)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"K\x03K\x05\x86" in data
                data = data.replace(b"K\x03K\x05\x86", b"K\xffK\xff\x86", 1)
            new.writestr(name, data)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_foreign_file_is_a_sentence(
    folder: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(folder)
    HOSTILE[case](weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as raised:
        baked(folder)
    said = str(raised.value)
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 700
    said.encode()
    assert not (folder / "pwned").exists()
    assert not list(folder.parent.glob("*.bloom*"))


ENTRIES: dict[str, list[str]] = {
    "bake": ["bake", "FOLDER", "-o", "OUT"],
    "inspect": ["inspect", "FOLDER"],
    "generate": ["generate", "--model", "FOLDER", "Hi"],
    "up": ["up", "generate", "--model", "FOLDER", "--generate-port", "PORT"],
}


@pytest.mark.parametrize("entry", [*ENTRIES, "the function"])
def test_without_torch_each_entry_says_what_to_install(
    folder: Path, weights: Weights, tmp_path: Path, entry: str
) -> None:
    torch.save(weights, folder / "pytorch_model.bin")
    hidden = tmp_path / "hidden"
    (hidden / "torch").mkdir(parents=True)
    (hidden / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    )
    path = f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', os.getcwd())}"
    environment = os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    if entry == "the function":
        code = (
            "from pathlib import Path\nfrom model.errors import ModelError\n"
            "from model.load import load\n"
            f"try:\n    load(Path({str(folder)!r}))\n"
            "except ModelError as error:\n    print(error)\n    raise SystemExit(3)"
        )
        command = [sys.executable, "-c", code]
    else:
        words = {
            "FOLDER": str(folder),
            "OUT": str(tmp_path / "o.bloom"),
            "PORT": str(free_port()),
        }
        arguments = [words.get(each, each) for each in ENTRIES[entry]]
        command = [sys.executable, "-m", "cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 3
    assert "pytorch_model.bin" in said
    assert "torch" in said
    assert "install" in said
    assert "Traceback" not in said


def test_pickles_cost_this_process_no_torch_and_little_memory(tmp_path: Path, demo: Path) -> None:
    """A model of 270 MB, in an archive and in the older format's one gulp, which is not ours."""
    config = json.loads((demo / "config.json").read_text())
    config |= {"hidden_size": 1024, "n_layer": 4, "n_head": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(demo / "tokenizer.json", tmp_path)
    code = f"""
import sys
from pathlib import Path
from typing import Any
from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
folder, most = Path({str(tmp_path)!r}), 0
def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before = private()
def watch(name, done, total):
    global most
    most = max(most, private())
bake(Checkpoint.open(folder), folder / "m.bloom", progress=watch)
assert not {{"torch", "numpy"}} & set(sys.modules)
print((most - before) // 1024)
"""
    from model.config import BloomConfig

    shapes = BloomConfig.from_dict(config).shapes()
    torch.save({n: torch.ones(s) for n, s in shapes.items()}, tmp_path / "pytorch_model.bin")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200
