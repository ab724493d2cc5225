"""Reading a checkpoint's small files, which are not trusted: with limits, and errors as sentences.

Whatever is at the path (a device, a pipe, a folder, gigabytes, deeply nested JSON), the result is a
value or a `ModelError` that names the file.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from model.errors import ModelError

LARGEST = 64 << 20  # bytes of a JSON file or a template; tokenizer.json of a BLOOM has 15 MB
_SHOWN = 80  # characters of a foreign text that an error repeats


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Return a file's text, UTF-8; `FileNotFoundError` when nothing is there."""
    return _text(path, read_bytes(path, largest))


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Return a regular file's bytes; `FileNotFoundError` when nothing is there."""
    try:
        # Opening a pipe must not wait for its writer, and a device must not be read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown(path)} cannot be read: {reason(error)}") from None
    try:
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} cannot be read: it is not a regular file")
            if status.st_size > largest:
                raise ModelError(
                    f"{path} has {status.st_size:,} bytes; such a file has at most {largest:,}"
                )
            data = file.read(largest + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from None
    if len(data) > largest:
        raise ModelError(f"{path} has more than {largest:,} bytes, the most for such a file")
    return data


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Return what a JSON file holds; `FileNotFoundError` when nothing is there."""
    text = read_text(path, largest)
    try:
        return json.loads(text)
    except RecursionError:
        raise ModelError(f"{path} cannot be read as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ModelError(f"{path} cannot be read as JSON: {shown(error)}") from None


def read_object(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """Return a JSON file's object; `FileNotFoundError` when nothing is there."""
    data = read_json(path, largest)
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected a JSON object, not {shown(data)}")
    return data


def shown(value: object) -> str:
    """Return a value as text for an error: one line of printable characters, shortened."""
    try:
        text = repr(value) if not isinstance(value, Path | Exception) else str(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        text = f"a very large {type(value).__name__}"
    text = " ".join(text.split())
    if len(text) > 4 * _SHOWN:
        text = f"{text[:_SHOWN]}… ({len(text):,} characters)"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def shortened(text: str, limit: int = 60) -> str:
    """Return a text of at most `limit` characters; a longer one ends in an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def reason(error: BaseException) -> str:
    """Say why a file could not be read or written, without its path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not text in UTF-8: {error.reason}") from None
