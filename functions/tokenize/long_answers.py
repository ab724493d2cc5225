"""Answers of many tokens: of bounded memory, because tokens take many times that of their text.

One large text is split at a time, and a bounded number of long answers is written at once, each in
blocks.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
from flask import Response

from functions import memory
from functions.errors import TooManyUploads
from functions.http.middleware.uploads import LARGE, PATIENCE, ByteBudget, release
from model.text.tokenizer import Spans, Tokenizer

BLOCK = 4096  # tokens of an answer that are written at a time; an answer with more is a long one
LONG_ANSWERS = 4  # of the largest size that may be sent at once
MOST_ANSWERS = 16  # long ones of any size that may be sent at once
SPLITTING_SECONDS = 10.0  # that a large text waits for those before it to be split


class LongAnswers:
    """The room for long answers; `largest` is that of a request's body in bytes."""

    def __init__(self, largest: int) -> None:
        self._splitting = threading.BoundedSemaphore(1)
        self._budget = ByteBudget(LONG_ANSWERS * largest)

    def split(self, tokenizer: Tokenizer, text: str) -> Spans:
        """Split a text into tokens, a large one alone."""
        if len(text) < LARGE:
            return tokenizer.spans(text)
        if not self._splitting.acquire(timeout=SPLITTING_SECONDS):
            raise TooManyUploads("too many large texts are being split at once", retry_after=1)
        try:
            return tokenizer.spans(text)
        finally:
            self._splitting.release()

    def reserve(self, size: int, places: ExitStack) -> None:
        """Reserve room for the answer to a body of `size` bytes, until `places` is closed."""
        share = max(size, self._budget.total // MOST_ANSWERS)
        if not self._budget.take(share, PATIENCE):
            raise TooManyUploads("too many long answers are being sent at once", retry_after=1)
        places.callback(self._budget.give_back, share)
        places.callback(memory.note, share)


def send(parts: Iterator[bytes], places: ExitStack) -> Response:
    """Stream JSON and close `places` at its end; nothing of the request is held meanwhile."""
    release()
    response = Response(parts, content_type="application/json")
    response.call_on_close(places.close)
    return response


def tokens_as_json(spans: Spans, piece: Callable[[int], str]) -> Iterator[bytes]:
    """Write a text's tokens as JSON, in blocks; as `schemas.Tokens` is written in one piece."""

    def blocks(of: Callable[[slice], Sequence[Any]]) -> Iterator[bytes]:
        for first in range(0, spans.count, BLOCK):
            part = slice(first, min(first + BLOCK, spans.count))
            yield (b"," if first else b"[") + msgspec.json.encode(of(part))[1:-1]
        yield b"]"

    yield b'{"ids":'
    yield from blocks(lambda part: spans.ids[part])
    yield b',"pieces":'
    yield from blocks(lambda part: list(map(piece, spans.ids[part])))
    yield b',"offsets":'
    yield from blocks(lambda part: list(zip(spans.starts[part], spans.ends[part], strict=True)))
    yield b',"count":%d}' % spans.count


def text_as_json(parts: Iterator[str]) -> Iterator[bytes]:
    """Write a text as JSON, in the parts in which it comes; as `schemas.Text` is written."""
    yield b'{"text":"'
    yield from (msgspec.json.encode(part)[1:-1] for part in parts)
    yield b'"}'
