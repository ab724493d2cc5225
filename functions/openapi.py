"""The OpenAPI document of a function, made of the same types that its requests are checked by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec

from functions import version

_TEXT_OR_NULL = {"type": ["string", "null"]}
_MESSAGE = {"type": "string", "description": "one sentence"}
_PARAM = _TEXT_OR_NULL | {"description": "the field at fault"}
ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error of the native routes.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "type", "message", "param"],
            "properties": {
                "code": {"type": "integer", "description": "the HTTP status"},
                "type": {"type": "string"},
                "message": _MESSAGE,
                "param": _PARAM,
            },
        }
    },
}
OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error of the routes below /v1, as OpenAI's clients read it.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _MESSAGE,
                "type": {
                    "enum": [
                        "invalid_request_error",
                        "authentication_error",
                        "rate_limit_error",
                        "server_error",
                    ]
                },
                "param": _PARAM,
                "code": _TEXT_OR_NULL
                | {"description": "such as model_not_found or context_length_exceeded"},
            },
            "additionalProperties": False,
        }
    },
}
OLLAMA_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error of the routes below /api, as Ollama's clients read it.",
    "required": ["error"],
    "properties": {"error": _MESSAGE},
    "additionalProperties": False,
}
_ERRORS = {"v1": "OpenAIError", "api": "OllamaError"}  # by the first part of a path
EVENTS, LINES = "text/event-stream", "application/x-ndjson"
_STREAMS: dict[str, dict[str, Any]] = {
    EVENTS: {
        "schema": {
            "type": "string",
            "description": "server-sent events, each with JSON as its data",
        }
    },
    LINES: {"schema": {"type": "string", "description": "JSON, an object a line"}},
}
# What any request may be answered with, and what those with a body, and those that generate, too.
_ALWAYS = {400: "not HTTP", 401: "no key, or a wrong one", 500: "the server failed"}
_WITH_BODY = {
    400: "not JSON",
    413: "the body is too large",
    415: "not application/json",
    422: "a field is wrong",
    503: "loading, or shutting down",
}
_GENERATING = {404: "not the model that is served", 429: "full", 504: "past the deadline"}
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds until it may go better", "schema": {"type": "integer"}}
}
_TIMEOUT: dict[str, Any] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "seconds that the request may take, where fewer than the server's own limit",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


@dataclass(frozen=True)
class Operation:
    """A route, as the document tells of it."""

    method: str
    path: str
    summary: str
    body: Any = None  # the msgspec type of its JSON
    answer: Any = None  # the type of its answer's JSON; None: only its media type is told
    generates: bool = False
    streams: str = ""  # the media type of a stream, where one can be asked for
    media: str = "application/json"
    optional_body: bool = False
    may_wait: bool = False  # answered with 503 while the model loads
    missing: bool = False  # answered with 404 for a name that does not exist


def document(name: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document of one function."""
    types = {each for op in operations for each in (op.body, op.answer) if each is not None}
    _, components = msgspec.json.schema_components(
        sorted(types, key=lambda each: str(each.__name__)),
        ref_template="#/components/schemas/{name}",
    )
    schemes = {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"piBLOOM {name}", "version": version(), "license": _LICENSE},
        "paths": paths,
        "components": {
            "schemas": components
            | {"Error": ERROR, "OpenAIError": OPENAI_ERROR, "OllamaError": OLLAMA_ERROR},
            "securitySchemes": schemes,
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _described(operation: Operation) -> dict[str, Any]:
    statuses = dict(_ALWAYS)
    if operation.body is not None:
        statuses |= _WITH_BODY
    if operation.generates:
        statuses |= _GENERATING
    if operation.may_wait:
        statuses[503] = _WITH_BODY[503]
    if operation.missing:
        statuses[404] = "there is no such thing"
    media: dict[str, Any] = {operation.media: {}}
    if operation.answer is not None:
        media[operation.media] = {"schema": _named(operation.answer)}
    if operation.streams:
        media[operation.streams] = _STREAMS[operation.streams]
    name = _ERRORS.get(operation.path.split("/")[1], "Error")
    if name != "Error" and (wrong := statuses.pop(422, "")):
        statuses[400] += f", or {wrong}"
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    responses: dict[str, Any] = {"200": {"description": "done", "content": media}}
    for status, why in sorted(statuses.items()):
        responses[str(status)] = {"description": why, "content": error}
        if status in (429, 503):
            responses[str(status)]["headers"] = _RETRY_AFTER
    found: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if operation.body is not None:
        found["requestBody"] = {
            "required": not operation.optional_body,
            "content": {"application/json": {"schema": _named(operation.body)}},
        }
    parameters: list[dict[str, Any]] = [_TIMEOUT] if operation.generates else []
    if "{" in operation.path:
        parameter = operation.path.partition("{")[2].partition("}")[0]
        parameters.append(
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        )
    if parameters:
        found["parameters"] = parameters
    return found


def _named(type_: Any) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{type_.__name__}"}


class Status(TypedDict):
    """How a process is."""

    status: str


COMMON = (
    Operation("GET", "/healthz", "Whether the process lives", answer=Status),
    Operation("GET", "/readyz", "Whether it would answer", answer=Status, may_wait=True),
    Operation("GET", "/metrics", "For Prometheus", media="text/plain"),
    Operation("GET", "/openapi.json", "This document"),
)
