"""Folders that nobody wrote in good faith: a copy, or a sentence, soon and with bounded memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.baked.cache import baked_copy
from model.errors import ModelError

ROOT = Path(__file__).parents[3]

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "README.md",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "adapter_config.json",
)


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


CONTENTS: dict[str, Callable[[Path], object]] = {
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a terabyte": hole,
    "nothing": holding(b""),
    "zeros": holding(bytes(1000)),
    "no UTF-8": holding(b"\xff" * 1000),
    "UTF-16": holding('{"model_type": "bloom"}'.encode("utf-16")),
    "lists without an end": holding(b"[" * 100_000),
    "lists, 100,000 deep": holding(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "objects, 100,000 deep": holding(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "an object": holding(b"{}"),
    "null": holding(b"null"),
    "a list": holding(b"[[]]"),
    "a number of 10,000 digits": holding(b"1" * 10_000),
    "halves of surrogates": holding(b'{"\\ud800": "\\udfff"}'),
}


@pytest.fixture
def folder(random_bloom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(random_bloom, tmp_path / "bloom"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def is_a_sentence(error: ModelError, folder: Path) -> None:
    said = str(error)
    assert str(folder) in said
    assert said.isprintable()
    assert len(said) < 1000
    said.encode()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_may_hold_anything(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    CONTENTS[content](path)
    if name == "pytorch_model.bin.index.json":
        (folder / "model.safetensors").unlink()
    try:
        baked_copy(folder)
    except ModelError as error:
        is_a_sentence(error, folder)


VALUES: dict[str, object] = {
    "10**30": 10**30,
    "-10**30": -(10**30),
    "1e308": 1e308,
    "infinity": float("inf"),
    "NaN": float("nan"),
    "null": None,
    "true": True,
    "a text": "x",
    "a text of 100,000 characters": "x" * 100_000,
    "a text with lines": "a\nb\x1b[2J",
    "half a surrogate": "\ud800",
    "a list": [],
    "a list of 10**30": [10**30],
    "an object": {},
    "nested 400 deep": json.loads("[" * 400 + "]" * 400),
}
FIELDS = {
    "config.json": (
        "vocab_size",
        "n_layer",
        "hidden_size",
        "n_embed",
        "num_attention_heads",
        "seq_length",
        "layer_norm_epsilon",
        "eos_token_id",
        "architectures",
        "model_type",
        "tie_word_embeddings",
        "quantization_config",
        "torch_dtype",
    ),
    "generation_config.json": ("eos_token_id", "temperature", "top_k", "top_p", "do_sample"),
    "model.safetensors.index.json": ("weight_map", "metadata"),
}
CASES = [(file, field) for file, fields in FIELDS.items() for field in fields]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("file", "field"), CASES, ids=lambda each: str(each))
def test_a_field_may_hold_anything(folder: Path, file: str, field: str, value: str) -> None:
    path = folder / file
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | {field: VALUES[value]}))
    if file.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    from model.checkpoint.folder import Checkpoint

    try:
        Checkpoint.open(folder)
    except ModelError as error:
        is_a_sentence(error, folder)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 5000,
        "../model.safetensors",
        "/dev/zero",
        "",
        ".",
        "..",
        "a\0b",
        "a/b",
        "\ud800",
        "é" * 200,
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_an_index_may_name_anything(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"word_embeddings.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as raised:
        baked_copy(folder)
    is_a_sentence(raised.value, folder)


def test_a_device_takes_no_memory(folder: Path) -> None:
    """In 300 MB of address space beyond what Python has, `/dev/zero` would end in MemoryError."""
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        other = folder.parent / name
        shutil.copytree(folder, other)
        (other / name).unlink()
        (other / name).symlink_to("/dev/zero")
        code = (
            "import resource\nfrom pathlib import Path\nfrom model.errors import ModelError\n"
            "from model.baked.cache import baked_copy\n"
            "resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))\n"
            f"try:\n    baked_copy(Path({str(other)!r}))\n"
            "except ModelError as error:\n    print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        assert "Traceback" not in done.stderr


MANY = 100_000  # compared with each other they would take minutes; each once, they take a moment
LISTS: dict[str, tuple[str, dict[str, object]]] = {
    "extra tokens": (
        "special_tokens_map.json",
        {"extra_special_tokens": [f"t{number}" for number in range(MANY)]},
    ),
    "extra tokens with flags": (
        "special_tokens_map.json",
        {"extra_special_tokens": [{"content": f"t{number}"} for number in range(MANY)]},
    ),
    "ends": ("generation_config.json", {"eos_token_id": list(range(MANY))}),
    "ends beyond the vocabulary": (
        "generation_config.json",
        {"eos_token_id": list(range(1 << 25, (1 << 25) + MANY))},
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_may_be_long(folder: Path, name: str) -> None:
    file, content = LISTS[name]
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    (folder / file).write_text(json.dumps(content))
    # Seconds of the processor, so that a busy machine is no failure.
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from model.errors import ModelError\n"
        "from model.checkpoint.generation_config import GenerationConfig\n"
        "from model.text.vocabulary import compile_vocabulary\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "folder = Path(sys.argv[1])\n"
        "notes = GenerationConfig.open(folder, 1 << 24).notes\n"
        "assert len(notes) < 10\n"
        "try:\n"
        "    compile_vocabulary(folder)\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
