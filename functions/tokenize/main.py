"""The tokenization function: text in, tokens out. It holds no weights, so it wakes at once.

functions-framework --source functions/tokenize/main.py --target tokenize
python -m functions tokenize
"""

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from flask import Request, Response, current_app

from functions import memory, version
from functions.errors import InvalidField, TooManyUploads
from functions.http.body import read_body
from functions.http.middleware import install
from functions.http.middleware.uploads import LARGE, PATIENCE, ByteBudget, release
from functions.http.probes import metrics_route, probes
from functions.http.replies import json_reply
from functions.http.routing import Routes
from functions.metrics import Registry
from functions.service import Service
from functions.settings import Settings
from functions.tokenize.schemas import (
    DetokenizeBody,
    Root,
    Text,
    TokenizeBody,
    Tokens,
    Vocabulary,
)
from model.baked.source import model_name, open_tokenizer
from model.text.tokenizer import Spans, Tokenizer

BLOCK = 4096  # tokens of an answer that are written at a time; what has more is a long one
PIECES = 8192  # texts of tokens that are remembered
LONG_ANSWERS = 4  # of the largest size that may be on their way at once
MOST_ANSWERS = 16  # that are long, of whatever size
SPLITTING_SECONDS = 10.0  # that a large text waits for those before it

settings = Settings.read(os.environ)
# What an answer is made of takes many times the memory of its text, so this is bounded: one large
# text is split at a time, and long answers are written in blocks, of a bounded number at once.
splitting = threading.BoundedSemaphore(1)
answers = ByteBudget(LONG_ANSWERS * settings.max_body)


@dataclass(frozen=True)
class Loaded:
    """The tokenizer, as a service holds it."""

    tokenizer: Tokenizer
    name: str

    def close(self, grace: float = 0.0) -> None:
        """Do nothing: a tokenization is over in a moment."""


service: Service[Loaded] = Service(
    lambda: Loaded(open_tokenizer(settings.model), model_name(settings.model))
)
metrics = Registry()


def model_info() -> dict[str, str] | None:
    """Say whose tokenizer answers, as labels."""
    if not (loaded := service.peek()):
        return None
    return {"name": loaded.name, "vocab_size": str(loaded.tokenizer.size)}


metrics.info("pibloom_model_info", "A constant 1, with the tokenizer's model.", model_info)
install(current_app, settings, metrics)
current_app.extensions["pibloom"] = service


def post_tokenize(request: Request) -> Response:
    """Split a text into tokens."""
    body = read_body(request, TokenizeBody)
    tokenizer = service.get().tokenizer
    piece = lru_cache(PIECES)(tokenizer.piece)
    size = len(request.get_data())
    with ExitStack() as places:
        if size > LARGE:  # its answer is long as well
            reserve(size, places)
        spans = split(tokenizer, body.text)
        if spans.count > BLOCK:
            if size <= LARGE:
                reserve(size, places)
            return long_answer(written(spans, piece), places.pop_all())
    ids, starts, ends = (each[: spans.count] for each in (spans.ids, spans.starts, spans.ends))
    return json_reply(
        Tokens(
            ids=ids,
            pieces=list(map(piece, ids)),
            offsets=list(zip(starts, ends, strict=True)),
            count=spans.count,
        )
    )


def split(tokenizer: Tokenizer, text: str) -> Spans:
    """Split a text, a large one alone."""
    if len(text) < LARGE:
        return tokenizer.spans(text)
    if not splitting.acquire(timeout=SPLITTING_SECONDS):
        raise TooManyUploads("too many large texts are being split at once", retry_after=1)
    try:
        return tokenizer.spans(text)
    finally:
        splitting.release()


def reserve(size: int, places: ExitStack) -> None:
    """Reserve a place for the long answer to a body of `size` bytes, or refuse it."""
    share = max(size, answers.total // MOST_ANSWERS)
    if not answers.take(share, PATIENCE):
        raise TooManyUploads("too many long answers are being sent at once", retry_after=1)
    places.callback(answers.give_back, share)
    places.callback(memory.note, share)


def long_answer(parts: Iterator[bytes], places: ExitStack) -> Response:
    """Stream JSON, and give its places back at the end; nothing of the request is held."""
    release()
    response = Response(parts, content_type="application/json")
    response.call_on_close(places.close)
    return response


def written(spans: Spans, piece: Callable[[int], str]) -> Iterator[bytes]:
    """Write a text's tokens as JSON, in blocks."""

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


def post_detokenize(request: Request) -> Response:
    """Join tokens to a text; special ones are left out."""
    body = read_body(request, DetokenizeBody)
    tokenizer = service.get().tokenizer
    beyond = next((at for at, id_ in enumerate(body.ids) if id_ >= tokenizer.size), None)
    if beyond is not None:
        raise InvalidField(
            f"ids[{beyond}]: expected an id below {tokenizer.size}, but got {body.ids[beyond]}",
            param=f"ids[{beyond}]",
        )
    if len(body.ids) <= BLOCK:
        return json_reply(Text(text=tokenizer.decode(body.ids)))
    ids = array("I", body.ids)

    def text() -> Iterator[bytes]:
        yield b'{"text":"'
        yield from (msgspec.json.encode(part)[1:-1] for part in tokenizer.texts(ids))
        yield b'"}'

    with ExitStack() as places:
        reserve(len(ids), places)
        return long_answer(text(), places.pop_all())


def get_root(request: Request) -> Response:
    """Say what is served."""
    loaded = service.peek()
    root = Root(
        service="tokenize",
        version=version(),
        state=service.state,
        model=Vocabulary(name=loaded.name, vocab_size=loaded.tokenizer.size) if loaded else None,
    )
    return json_reply(root)


def get_document(request: Request) -> Response:
    """Describe every route."""
    from functions.tokenize.document import document  # a start does without it

    return json_reply(document())


routes = Routes(
    ("GET", "/", get_root),
    ("POST", "/", post_tokenize),
    ("POST", "/detokenize", post_detokenize),
    *probes(lambda: service.state, service.get),
    metrics_route(metrics),
    ("GET", "/openapi.json", get_document),
)


def tokenize(request: Request) -> Response:
    """Answer one HTTP request; the function's entry point."""
    service.start()
    return routes(request)
