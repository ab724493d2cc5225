"""What the OpenAPI document says of each route of `tokenize`."""

from typing import Any

from functions import openapi
from functions.openapi import Operation
from functions.tokenize.schemas import DetokenizeBody, Root, Text, TokenizeBody, Tokens

OPERATIONS = (
    Operation("GET", "/", "getRoot", "What is served", answer=Root),
    Operation("POST", "/", "tokenize", "Split a text into tokens", TokenizeBody, Tokens),
    Operation("POST", "/detokenize", "detokenize", "Join tokens to a text", DetokenizeBody, Text),
    *openapi.COMMON,
)


def document() -> dict[str, Any]:
    """Return the document."""
    return openapi.document("tokenize", OPERATIONS)
