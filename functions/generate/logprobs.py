"""The log-probabilities of a reply's tokens, as OpenAI's chats and Ollama's routes write them."""

import msgspec

from model.load import LoadedModel
from model.serving import events


class TopLogprob(msgspec.Struct, kw_only=True):
    """A token that may stand in a place, and how likely the model found it there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, kw_only=True):
    """A token of a reply, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


def token_text(model: LoadedModel, id_: int) -> str:
    """Return a token's text; the bytes of an incomplete character are escaped as `\\xe4`."""
    return model.tokenizer.bytes_of(id_).decode("utf-8", "backslashreplace")


def token_logprob(model: LoadedModel, token: events.Token) -> TokenLogprob:
    """Return how likely a token of a reply was; it must have been generated with `logprobs`."""
    assert token.likelihood is not None
    return TokenLogprob(
        token=token_text(model, token.id),
        logprob=token.likelihood.logprob,
        bytes=list(model.tokenizer.bytes_of(token.id)),
        top_logprobs=[
            TopLogprob(
                token=token_text(model, id_),
                logprob=logprob,
                bytes=list(model.tokenizer.bytes_of(id_)),
            )
            for id_, logprob in token.likelihood.top
        ],
    )
