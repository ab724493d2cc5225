"""Pickled weights (`pytorch_model.bin`), as the process of `unpickle.py` reads them."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from model.checkpoint.tensor import TensorInfo
from model.errors import ModelError


class Unpickler:
    """A process that reads pickles, from the first request to the end of the `with` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Unpickler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    stream.close()
            self._process = None

    def tensors(self, path: Path) -> list[TensorInfo]:
        """List a file's tensors."""
        answer, _ = self._ask(path, "list")
        return [
            TensorInfo(key, tuple(shape), dtype, path.name, nbytes, key=key, storage=storage)
            for key, shape, dtype, nbytes, storage in answer["tensors"]
        ]

    def open(self, path: Path, tensor: TensorInfo) -> IO[bytes]:
        """Ask for a tensor's bytes; all must be read before the next request."""
        answer, stream = self._ask(path, "read", tensor.key)
        if answer["bytes"] != tensor.nbytes:
            raise ModelError(f"{path} has changed while it was read; try again")
        return stream

    def failed(self, path: Path) -> ModelError:
        """Return the error that says how the process ended."""
        assert self._process
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:  # it answers, but not as it should
            self._process.kill()
            code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return ModelError(
            f"{path} cannot be read: the process that unpickled it ended with {how}; the file is"
            " damaged, hostile or of another byte order"
        )

    def _ask(self, path: Path, what: str, *rest: str) -> tuple[dict[str, Any], IO[bytes]]:
        if self._process is None:
            program = str(Path(__file__).with_name("unpickle.py"))
            self._process = subprocess.Popen(
                [sys.executable, "-P", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps([what, str(path), *rest]).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise self.failed(path) from None
        if missing := answer.get("missing"):
            raise ModelError(
                f"{path} is a pickle, and reading it needs {missing}: install piBLOOM with its"
                " extra 'reference' (pip install -e '.[reference]'), or save the model as"
                " safetensors"
            )
        if error := answer.get("error"):
            raise ModelError(f"{path} cannot be read: {error}")
        return answer, self._process.stdout
