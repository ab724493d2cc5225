"""What is calibrated already, in files, so that a bake that was interrupted can go on.

Each matrix has a file: a line of JSON, then codes and scales, with a checksum; one that is damaged
counts as missing.
"""

import ctypes
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.calibration.folder import write_synced
from model.calibration.rounding import Rounded


class Results:
    """An open working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, rounded: Rounded, facts: Mapping[str, Any]) -> None:
        """Write a matrix, on disk when this returns."""
        payload = [_bytes(rounded.codes), _bytes(rounded.scales)]
        head: dict[str, Any] = {"shape": list(rounded.codes.shape), "facts": dict(facts)}
        head["checksum"] = _checksum(head, *payload)
        write_synced(self._path(name), json.dumps(head).encode() + b"\n", *payload)

    def load(self, name: str) -> tuple[Rounded, dict[str, Any]] | None:
        """Return a matrix and its facts; None when it is not there or damaged."""
        try:
            with self._path(name).open("rb") as file:
                head = json.loads(file.readline())
                rows, cols = head["shape"]
                payload = bytearray(file.read())
            if _checksum(head, payload) != head["checksum"]:
                return None
            codes = torch.frombuffer(payload, dtype=torch.int8, count=rows * cols)
            scales = torch.frombuffer(payload, dtype=torch.float16, offset=rows * cols)
            rounded = Rounded(codes.view(rows, cols), scales.view(rows, -1), torch.zeros(rows))
            return rounded, head["facts"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def tokens(self) -> list[list[int]] | None:
        """Return the tokens that were kept."""
        try:
            found: list[list[int]] = json.loads((self.folder / "tokens").read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def keep_tokens(self, windows: list[list[int]]) -> None:
        """Keep tokens that took long to make."""
        write_synced(self.folder / "tokens", json.dumps(windows).encode())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.codes"


def _checksum(head: Mapping[str, Any], *payload: bytes | bytearray) -> int:
    checksum = zlib.crc32(json.dumps([head["shape"], head["facts"]]).encode())
    for part in payload:
        checksum = zlib.crc32(part, checksum)
    return checksum


def _bytes(tensor: torch.Tensor) -> bytes:
    tensor = tensor.contiguous()
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)
