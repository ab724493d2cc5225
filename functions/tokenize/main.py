"""The tokenization function: text in, tokens out. It holds no weights, so it wakes at once.

functions-framework --source functions/tokenize/main.py --target tokenize
python -m functions tokenize
"""

import os
from dataclasses import dataclass
from typing import Annotated

import msgspec
from flask import Request, Response, current_app

from functions import __version__, openapi
from functions.errors import InvalidField
from functions.http import Routes, install, json_reply, observed, probes, read_body
from functions.metrics import Registry
from functions.openapi import Operation
from functions.service import Service
from functions.settings import Settings
from model.loader import model_name
from model.tokenizer import Tokenizer

settings = Settings.read(os.environ)


@dataclass(frozen=True)
class Loaded:
    """The tokenizer, as a service holds it."""

    tokenizer: Tokenizer
    name: str

    def close(self, grace: float = 0.0) -> None:
        """Do nothing: a tokenization is over in a moment."""


service: Service[Loaded] = Service(
    lambda: Loaded(Tokenizer.open(settings.model), model_name(settings.model))
)
metrics = Registry()
install(current_app, settings, metrics)
current_app.extensions["pibloom"] = service


class TokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /` takes."""

    text: str


def post_tokenize(request: Request) -> Response:
    """Split a text into tokens."""
    body = read_body(request, TokenizeBody)
    encoding = service.get().tokenizer.encode(body.text)
    return json_reply(
        {
            "ids": encoding.ids,
            "pieces": encoding.pieces,
            "offsets": encoding.offsets,
            "count": len(encoding.ids),
        }
    )


class DetokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /detokenize` takes."""

    ids: list[Annotated[int, msgspec.Meta(ge=0)]]


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
    return json_reply({"text": tokenizer.decode(body.ids)})


def get_root(request: Request) -> Response:
    """Say what is served."""
    loaded = service.peek()
    model = loaded and {"name": loaded.name, "vocab_size": loaded.tokenizer.size}
    return json_reply(
        {"service": "tokenize", "version": __version__, "state": service.state, "model": model}
    )


OPERATIONS = (
    Operation("POST", "/", "Split a text", TokenizeBody),
    Operation("POST", "/detokenize", "Join tokens", DetokenizeBody),
    *openapi.COMMON,
)


def get_document(request: Request) -> Response:
    """Describe every route."""
    return json_reply(openapi.document("tokenize", OPERATIONS))


routes = Routes(
    ("GET", "/", get_root),
    ("POST", "/", post_tokenize),
    ("POST", "/detokenize", post_detokenize),
    *probes(lambda: service.state, service.get),
    *observed(metrics),
    ("GET", "/openapi.json", get_document),
)


def tokenize(request: Request) -> Response:
    """Answer one HTTP request; the function's entry point."""
    service.start()
    return routes(request)
