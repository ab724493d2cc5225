"""Reads pickled weights (`pytorch_model.bin`) in a process of its own, where they can do no harm.

    python -P unpickle.py    # asked and answered by `model.checkpoint.pickled.Unpickler`

A pickle is read by torch's restricted unpickler, which builds tensors and refuses code. A hostile
or damaged one can still end the process that reads it (SIGSEGV) or take its memory, so that is not
ours. Each line that comes in is JSON, and so is each line that goes out:

    ["list", FILE]       → {"tensors": [[name, shape, type, bytes, where its data is], …]}
    ["read", FILE, NAME] → {"bytes": N}, and N bytes
    either               → {"error": SENTENCE} or {"missing": MODULE}
"""

import ctypes
import json
import os
import resource
import sys
from typing import Any

_CPU_SECONDS = 1800
_SPARE_MEMORY = 4 << 30  # bytes beyond twice the file's size, which the older format needs


class _Refused(Exception):
    """A file that is not read; the message ends a sentence that begins with its path."""


class _File:
    """One file's tensors; data is mapped, where the format allows it."""

    def __init__(self, path: str) -> None:
        import torch

        self.path = path
        size = os.stat(path).st_size
        _limit(resource.RLIMIT_DATA, _SPARE_MEMORY + 2 * size)
        self._names = {
            torch.float64: "F64",
            torch.float32: "F32",
            torch.float16: "F16",
            torch.bfloat16: "BF16",
            torch.int32: "I32",  # what GPTQ packs codes into
        }
        self._tensors: dict[str, Any] | None = None
        if _is_plain_archive(path):
            self._tensors = self._load(mmap=True, map_location="cpu")
            self._listed = self._tensors
        else:  # the older format, or one that was compressed: its data is read when needed
            self._listed = self._load(mmap=False, map_location="meta")

    def _load(self, *, mmap: bool, map_location: str) -> dict[str, Any]:
        import torch

        found = torch.load(self.path, map_location=map_location, weights_only=True, mmap=mmap)
        if not isinstance(found, dict):
            raise _Refused(f"expected a dictionary of tensors, not {type(found).__name__}")
        for name, tensor in found.items():
            if not isinstance(name, str):
                raise _Refused("expected a dictionary of tensors by name")
            if not isinstance(tensor, torch.Tensor):
                raise _Refused(f"{_shown(name)} is not a tensor")
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise _Refused(f"{_shown(name)} is sparse or quantised")
            if map_location == "cpu" and tensor.device.type != "cpu":
                raise _Refused(f"{_shown(name)} has no data: it is on the device {tensor.device}")
        return found

    def list(self) -> list[Any]:
        return [
            [
                name,
                list(tensor.shape),
                self._names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")),
                tensor.numel() * tensor.element_size(),
                f"{tensor.untyped_storage()._cdata} {tensor.storage_offset()} {tensor.stride()}",
            ]
            for name, tensor in self._listed.items()
        ]

    def read(self, name: str) -> tuple[Any, int]:
        """Return a tensor whose data is in one piece, and its bytes."""
        if self._tensors is None:
            self._tensors = self._load(mmap=False, map_location="cpu")
        tensor = self._tensors[name].detach().contiguous()
        return tensor, tensor.numel() * tensor.element_size()


def _is_plain_archive(path: str) -> bool:
    """Whether a file can be mapped; torch maps what is compressed too, and takes it for numbers."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError):
        return False
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, hard))


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 200 else f"{text[:80]!r}…"


def _why(error: Exception) -> str:
    import pickle

    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, and is refused: unpickling it could run code"
    if isinstance(error, MemoryError):
        return "reading it takes more memory than weights of its size would"
    reason = str(error).partition("\n")[0][:200] or type(error).__name__
    return f"it is truncated or not a PyTorch file: {reason}"


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, _CPU_SECONDS)
    file: _File | None = None

    def answer(**values: object) -> None:
        answers.write(json.dumps(values).encode() + b"\n")
        answers.flush()

    for line in sys.stdin:
        what, path, *rest = json.loads(line)
        try:
            if file is None or file.path != path:
                file = None  # its memory goes first
                file = _File(path)
            if what == "list":
                answer(tensors=file.list())
                continue
            tensor, size = file.read(rest[0])
        except ModuleNotFoundError as error:
            answer(missing=error.name)
            continue
        except Exception as error:  # of a foreign file: anything
            answer(error=_why(error))
            continue
        answer(bytes=size)
        if size:
            answers.write((ctypes.c_char * size).from_address(tensor.data_ptr()))
            answers.flush()


if __name__ == "__main__":
    main()
