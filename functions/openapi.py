"""The OpenAPI document of a function, made of the same types that its requests are checked by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from functions import __version__

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "type", "message", "param"],
            "properties": {
                "code": {"type": "integer", "description": "the HTTP status"},
                "type": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field at fault"},
            },
        }
    },
}
# What any request may be answered with, and what those with a body, and those that generate, too.
_ALWAYS = {400: "not HTTP", 401: "a key is needed", 500: "the server failed"}
_WITH_BODY = {
    400: "not JSON",
    413: "the body is too large",
    415: "not application/json",
    422: "a field is wrong",
    503: "loading, or shutting down; see Retry-After",
}
_GENERATING = {404: "not the model that is served", 429: "full", 504: "past the deadline"}


@dataclass(frozen=True)
class Operation:
    """A route, as the document tells of it."""

    method: str
    path: str
    summary: str
    body: Any = None  # the msgspec type of its JSON
    generates: bool = False
    streams: bool = False
    media: str = "application/json"
    optional_body: bool = False
    may_wait: bool = False  # answered with 503 while the model loads
    missing: bool = False  # answered with 404 for a name that does not exist


def document(name: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document of one function."""
    bodies = [operation.body for operation in operations if operation.body is not None]
    _, components = msgspec.json.schema_components(
        bodies, ref_template="#/components/schemas/{name}"
    )
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"piBLOOM {name}", "version": __version__, "license": _LICENSE},
        "paths": paths,
        "components": {
            "schemas": components | {"Error": ERROR},
            "securitySchemes": schemes,
        },
        "security": [{}, {"key": []}],
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
    if operation.streams:
        media["text/event-stream"] = {}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {"200": {"description": "done", "content": media}}
    for status, why in sorted(statuses.items()):
        responses[str(status)] = {"description": why, "content": error}
    found: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if operation.body is not None:
        name = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        found["requestBody"] = {
            "required": not operation.optional_body,
            "content": {"application/json": {"schema": name}},
        }
    if "{" in operation.path:
        parameter = operation.path.partition("{")[2].partition("}")[0]
        found["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return found


COMMON = (
    Operation("GET", "/", "What is served"),
    Operation("GET", "/healthz", "Whether the process lives"),
    Operation("GET", "/readyz", "Whether it would answer", may_wait=True),
    Operation("GET", "/metrics", "For Prometheus", media="text/plain"),
    Operation("GET", "/openapi.json", "This document"),
)
