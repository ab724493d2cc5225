"""What is a safetensors file, against the library; and which of a folder's files are read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from model.checkpoint.safetensors import safetensors_header
from model.checkpoint.tensor import DTYPE_BITS
from model.checkpoint.weight_files import tensors_of, weight_files
from model.errors import ModelError

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]}


def file_of(header: object, data: int | bytes = 24, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = data if isinstance(data, bytes) else bytes(data)
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in A.items() if key != name}


def changed(**fields: object) -> dict[str, Any]:
    return {"a": A | fields}


CASES: dict[str, bytes] = {
    "one tensor": file_of({"a": A}),
    "two tensors": file_of({"a": A, "b": B}, 32),
    "two tensors, in the other order": file_of({"b": B, "a": A}, 32),
    "no tensor": file_of({}, 0),
    "metadata alone": file_of({"__metadata__": {"format": "pt"}}, 0),
    "metadata of texts": file_of({"__metadata__": {"format": "pt", "x": ""}, "a": A}),
    "metadata null": file_of({"__metadata__": None, "a": A}),
    "metadata of numbers": file_of({"__metadata__": {"format": 1}, "a": A}),
    "metadata a list": file_of({"__metadata__": [], "a": A}),
    "metadata a text": file_of({"__metadata__": "pt", "a": A}),
    "metadata nested": file_of({"__metadata__": {"a": {"b": "c"}}, "a": A}),
    "metadata null within": file_of({"__metadata__": {"a": None}, "a": A}),
    "padding of spaces": file_of(json.dumps({"a": A}).encode() + b"   "),
    "padding of newlines": file_of(json.dumps({"a": A}).encode() + b"\n\t\r "),
    "padding of zeros": file_of(json.dumps({"a": A}).encode() + b"\0\0"),
    "padding of text": file_of(json.dumps({"a": A}).encode() + b"{}"),
    "space in front": file_of(b" " + json.dumps({"a": A}).encode()),
    "a byte order mark": file_of(b"\xef\xbb\xbf" + json.dumps({"a": A}).encode()),
    "no UTF-8": file_of(json.dumps({"a": A}).encode().replace(b'"a"', b'"\xff"')),
    "UTF-8 of a name": file_of(json.dumps({"å": A}, ensure_ascii=False).encode()),
    "an escape in a name": file_of(b'{"\\u00e5":' + json.dumps(A).encode() + b"}"),
    "half a surrogate": file_of(b'{"\\ud800":' + json.dumps(A).encode() + b"}"),
    "a pair of surrogates": file_of(b'{"\\ud83d\\ude00":' + json.dumps(A).encode() + b"}"),
    "a control character": file_of(b'{"a\n":' + json.dumps(A).encode() + b"}"),
    "a list": file_of(b"[]", 0),
    "a number": file_of(b"5", 0),
    "no JSON": file_of(b"{", 0),
    "an empty header": file_of(b"", 0),
    "an empty file": b"",
    "seven bytes": b"\2\0\0\0\0\0\0",
    "a header longer than the file": file_of({"a": A}, length=10**6),
    "a header up to the end": file_of({"a": A}, 0, length=len(json.dumps({"a": A}))),
    "a header beyond all bounds": file_of({"a": A}, length=2**63),
    "a header of -1": file_of({"a": A}, length=2**64 - 1),
    "bytes behind": file_of({"a": A}, 25),
    "many bytes behind": file_of({"a": A}, 4096),
    "bytes missing": file_of({"a": A}, 23),
    "bytes behind nothing": file_of({}, 1),
    "a hole in front": file_of(changed(data_offsets=[8, 32]), 32),
    "a hole between": file_of({"a": A, "b": B | {"data_offsets": [32, 40]}}, 40),
    "an overlap": file_of({"a": A, "b": B | {"data_offsets": [16, 24]}}, 24),
    "the same place twice": file_of({"a": A, "b": A}),
    "backwards": file_of(changed(data_offsets=[24, 0])),
    "too small for its shape": file_of(changed(data_offsets=[0, 20]), 20),
    "too large for its shape": file_of(changed(data_offsets=[0, 28]), 28),
    "empty tensors": file_of(
        {"a": A, "e": {"dtype": "F32", "shape": [0, 5], "data_offsets": [24, 24]}}
    ),
    "an empty tensor in front": file_of(
        {"a": A, "e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    ),
    "an empty tensor within": file_of(
        {"a": A, "e": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]}}
    ),
    "a single number": file_of({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, 4),
    "a shape beyond counting": file_of(changed(shape=[2**40, 2**40])),
    "a shape beyond counting, by zero": file_of(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}, 0
    ),
    "zero, then a shape beyond counting": file_of(
        {"a": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}, 0
    ),
    "bytes beyond counting": file_of(changed(shape=[2**62, 2])),
    "a shape of floats": file_of(changed(shape=[2.0, 3])),
    "a shape of texts": file_of(changed(shape=["2", 3])),
    "a shape below zero": file_of(changed(shape=[-2, -3])),
    "a shape of truths": file_of(changed(shape=[True, 6])),
    "a shape of nulls": file_of(changed(shape=[None])),
    "a shape too large for a number": file_of(changed(shape=[10**30])),
    "a shape null": file_of(changed(shape=None)),
    "a shape of objects": file_of(changed(shape={"0": 2})),
    "offsets of three": file_of(changed(data_offsets=[0, 24, 24])),
    "offsets of one": file_of(changed(data_offsets=[24])),
    "offsets of floats": file_of(changed(data_offsets=[0, 24.0])),
    "offsets below zero": file_of(changed(data_offsets=[-24, 0])),
    "offsets too large": file_of(changed(data_offsets=[0, 2**64])),
    "offsets as 2.4e1": file_of(json.dumps({"a": A}).encode().replace(b"24", b"2.4e1")),
    "offsets as -0": file_of(json.dumps({"a": A}).encode().replace(b"[0,", b"[-0,")),
    "no type": file_of({"a": without("dtype")}),
    "no shape": file_of({"a": without("shape")}),
    "no offsets": file_of({"a": without("data_offsets")}),
    "a further field": file_of(changed(note="x")),
    "a tensor null": file_of({"a": None}),
    "a tensor of a number": file_of({"a": 5}),
    "the type in small letters": file_of(changed(dtype="f32")),
    "the type null": file_of(changed(dtype=None)),
    "the type a number": file_of(changed(dtype=5)),
    "an unknown type": file_of(changed(dtype="F128")),
    "NaN": file_of(changed(note=float("nan"))),
    "a type twice": file_of(
        b'{"a":{"dtype":"F16","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    ),
    "metadata twice": file_of(
        b'{"__metadata__":{},"__metadata__":{},"a":' + json.dumps(A).encode() + b"}"
    ),
    "nested 120 deep": file_of(b'{"a":{"n":' + b"[" * 118 + b"]" * 118 + b"}}", 0),
    "nested 1,000 deep": file_of(
        json.dumps({"a": A}).encode()[:-2] + b',"n":' + b"[" * 998 + b"]" * 998 + b"}}"
    ),
    "nested 100,000 deep": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0),
    "an empty name": file_of({"": A}),
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "zeros": bytes(64),
} | {
    f"of the type {dtype}": file_of(
        {"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, bits * 4 // 8]}}, bits * 4 // 8
    )
    for dtype, bits in DTYPE_BITS.items()
}
# What the library takes, and is refused here: which of two is meant is not known, or it is by
# accident, not by the format, that it is taken.
STRICTER = {
    "a tensor as a list": file_of({"a": ["F32", [2, 3], [0, 24]]}),
    "a tensor twice": file_of(
        b'{"a":' + json.dumps(A).encode() + b',"a":' + json.dumps(A).encode() + b"}"
    ),
    "metadata's name twice": file_of(
        b'{"__metadata__":{"f":"a","f":"b"},"a":' + json.dumps(A).encode() + b"}"
    ),
}


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return bool(file.keys()) or True
    except (SafetensorError, OSError, ValueError):
        return False


def we_take(path: Path) -> bool:
    problem = ""
    try:
        safetensors_header(path)
    except ModelError as error:
        problem = str(error)
    assert not problem or str(path) in problem
    assert len(problem) < 600
    return not problem


@pytest.mark.parametrize("case", CASES)
def test_a_header_is_taken_or_refused_as_the_library_does(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CASES[case])
    assert we_take(path) == library_takes(path)


@pytest.mark.parametrize("case", STRICTER)
def test_where_we_are_stricter(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(STRICTER[case])
    assert not we_take(path)


def test_the_sweep_knows_every_type_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(changed(dtype="?")))
    with pytest.raises(SafetensorError) as raised, safe_open(path, framework="pt"):
        pass
    for dtype in DTYPE_BITS:
        assert f"`{dtype}`" in str(raised.value)
    assert str(raised.value).count("`") == 2 * (1 + len(DTYPE_BITS))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_to_weights_says_how_to_fetch_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CASES["a pointer"])
    with pytest.raises(ModelError, match="git lfs pull"):
        tensors_of([tmp_path / name])


NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@pytest.mark.parametrize("there", range(1, 16))
def test_the_file_that_is_read_is_transformers(tmp_path: Path, there: int) -> None:
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    shard = {name: f"{name.partition('.')[0]}-1.{name.split('.')[1]}" for name in NAMES}
    for bit, name in enumerate(NAMES):
        if there >> bit & 1:
            index = {"metadata": {}, "weight_map": {"a": shard[name]}}
            (tmp_path / name).write_text(json.dumps(index) if name.endswith("json") else "")
            (tmp_path / shard[name]).touch()
    theirs, _ = _get_resolved_checkpoint_files(str(tmp_path), None, None, None, None, False)
    assert theirs is not None
    assert [str(path) for path in weight_files(tmp_path)] == list(map(str, theirs))


@pytest.mark.parametrize(
    "table",
    [
        None,
        [],
        {},
        5,
        {"a": None},
        {"a": 3},
        {"a": ["x"]},
        {"a": ""},
        {"a": "."},
        {"a": ".."},
        {"a": "/etc/passwd"},
        {"a": "../model.safetensors"},
        {"a": "x" * 5000},
        {"a": "é" * 200},
        {"a": "x\0y"},
        {"a": "missing.safetensors"},
        {"a": "folder"},
        {"a": "\ud800"},
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "replace").decode(),
)
def test_an_odd_index_is_a_sentence(tmp_path: Path, table: object) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": table}))
    with pytest.raises(ModelError) as raised:
        weight_files(tmp_path)
    assert "model.safetensors.index.json" in str(raised.value)
    assert len(str(raised.value)) < 600
