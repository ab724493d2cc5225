"""The tokenization function: text in, tokens out. It holds no weights, so it starts at once.

functions-framework --source functions/tokenize/main.py --target tokenize
python -m functions tokenize
"""

import os
from array import array
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache

from flask import Request, Response, current_app

from functions import version
from functions.errors import InvalidField
from functions.http.body import read_body
from functions.http.middleware import install
from functions.http.middleware.uploads import LARGE
from functions.http.probes import metrics_route, probes
from functions.http.replies import json_reply
from functions.http.routing import Routes
from functions.metrics import Registry
from functions.service import Service
from functions.settings import Settings
from functions.tokenize import long_answers
from functions.tokenize.long_answers import BLOCK, LongAnswers
from functions.tokenize.schemas import (
    DetokenizeBody,
    Root,
    Text,
    TokenizeBody,
    Tokens,
    Vocabulary,
)
from model.baked.card import ModelCard
from model.baked.source import located, model_card, open_tokenizer
from model.text.tokenizer import Tokenizer

PIECES = 8192  # tokens whose texts are remembered while one request is answered

settings = Settings.read(os.environ)
answers = LongAnswers(settings.max_body)


@dataclass(frozen=True)
class Loaded:
    """The tokenizer, as a service holds it."""

    tokenizer: Tokenizer
    card: ModelCard

    def close(self, grace: float = 0.0) -> None:
        """Do nothing: a tokenization is over in a moment."""


def load_tokenizer() -> Loaded:
    """Open the tokenizer of the model that the settings name."""
    path = located(settings.model)
    return Loaded(open_tokenizer(path), model_card(path))


service: Service[Loaded] = Service(load_tokenizer)
metrics = Registry()


def model_info() -> dict[str, str] | None:
    """Say whose tokenizer answers, as labels."""
    if not (loaded := service.peek()):
        return None
    return {"name": loaded.card.name, "vocab_size": str(loaded.tokenizer.size)}


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
            answers.reserve(size, places)
        spans = answers.split(tokenizer, body.text)
        if spans.count > BLOCK:
            if size <= LARGE:
                answers.reserve(size, places)
            return long_answers.send(long_answers.tokens_as_json(spans, piece), places.pop_all())
    ids, starts, ends = (each[: spans.count] for each in (spans.ids, spans.starts, spans.ends))
    return json_reply(
        Tokens(
            ids=ids,
            pieces=list(map(piece, ids)),
            offsets=list(zip(starts, ends, strict=True)),
            count=spans.count,
        )
    )


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

    with ExitStack() as places:
        answers.reserve(len(ids), places)
        parts = long_answers.text_as_json(tokenizer.texts(ids))
        return long_answers.send(parts, places.pop_all())


def get_root(request: Request) -> Response:
    """Say what is served."""
    model = None
    if loaded := service.peek():
        model = Vocabulary(**vars(loaded.card), vocab_size=loaded.tokenizer.size)
    root = Root(service="tokenize", version=version(), state=service.state, model=model)
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
