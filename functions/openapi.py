"""The OpenAPI document of a function, made of the same types that its requests are checked by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from functions import version

Sentence = Annotated[str, Meta(description="one sentence")]
FieldAtFault = Annotated[str | None, Meta(description="the field at fault")]


class NativeErrorDetails(msgspec.Struct):
    """What is wrong; some types tell more, such as the limit that was passed."""

    code: Annotated[int, Meta(description="the HTTP status")]
    type: str
    message: Sentence
    param: FieldAtFault


class NativeError(msgspec.Struct):
    """An error of the native routes."""

    error: NativeErrorDetails


class OpenAIErrorDetails(msgspec.Struct, forbid_unknown_fields=True):
    """What is wrong, as OpenAI's clients read it."""

    message: Sentence
    type: Literal[
        "invalid_request_error", "authentication_error", "rate_limit_error", "server_error"
    ]
    param: FieldAtFault
    code: Annotated[
        str | None, Meta(description="such as model_not_found or context_length_exceeded")
    ]


class OpenAIError(msgspec.Struct, forbid_unknown_fields=True):
    """An error of the routes below /v1."""

    error: OpenAIErrorDetails


class OllamaError(msgspec.Struct, forbid_unknown_fields=True):
    """An error of the routes below /api, as Ollama's clients read it."""

    error: Sentence


EVENTS, LINES = "text/event-stream", "application/x-ndjson"
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
class Stream:
    """What a stream holds: events with JSON as their data, or lines of JSON."""

    media: str  # EVENTS or LINES
    items: tuple[Any, ...]  # their msgspec types
    description: str
    has_errors: bool = True  # the last may be an error, as other answers of the route's family are
    ending: str = ""  # the data of the last event, where that is not JSON


@dataclass(frozen=True)
class Operation:
    """A route, as the document describes it."""

    method: str
    path: str
    name: str  # of the function that a generated client has for it
    summary: str
    body: Any = None  # the msgspec type of its JSON
    answer: Any = None  # the type of what a 200 has; None: there is no 200
    media: str = "application/json"  # of a 200
    stream: Stream | None = None  # what a 200 has where a stream was asked for
    generates: bool = False
    optional_body: bool = False
    may_wait: bool = False  # answered with 503 while the model loads
    missing: bool = False  # answered with 404 for a name that does not exist


Schemas = Mapping[Any, dict[str, Any]]  # by their types


def document(name: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document of one function."""
    types = list(dict.fromkeys(type_ for op in operations for type_ in _types(op)))
    found, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, found, strict=True))
    schemes = {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    paths: dict[str, Any] = {}
    for operation in operations:
        described = _described(operation, schemas)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": f"piBLOOM {name}", "version": version(), "license": _LICENSE},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(_for_generators(components).items())),
            "securitySchemes": schemes,
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _types(operation: Operation) -> Iterator[Any]:
    """Yield the msgspec types of an operation's body and answers."""
    yield from (type_ for type_ in (operation.body, operation.answer) if type_ is not None)
    yield from operation.stream.items if operation.stream else ()
    yield _error_type(operation)


def _for_generators(schema: Any) -> Any:
    """Return the same schema in a form that generators of clients take.

    openapi-python-client demands that each list says what it holds, even if that is anything, and
    reads no `items: false`, which says no more than `maxItems` of the same list; openapi-typescript
    takes a field with a default as required, even if that is null.
    """
    if isinstance(schema, list):
        return [_for_generators(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: _for_generators(value)
        for name, value in schema.items()
        if (name, value) not in (("default", None), ("items", False))
    }
    is_list = found.get("type") == "array" and "prefixItems" not in found
    return {"items": {}} | found if is_list else found


def _described(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _successes(operation, schemas) | _failures(operation, schemas),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.optional_body,
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = [_TIMEOUT] if operation.generates else []
    if "{" in operation.path:
        name = operation.path.partition("{")[2].partition("}")[0]
        of_path = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        parameters.append(of_path)
    return parameters


def _successes(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    if operation.answer is None:
        return {}
    content = {operation.media: {"schema": schemas[operation.answer]}}
    if stream := operation.stream:
        items = [schemas[type_] for type_ in stream.items]
        if stream.has_errors:
            items.append(schemas[_error_type(operation)])
        if stream.ending:
            items.append({"type": "string", "const": stream.ending})
        schema = {"description": stream.description, "anyOf": items}
        content[stream.media] = {"schema": schema}
    return {"200": {"description": "done", "content": content}}


def _failures(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    statuses = dict(_ALWAYS)
    if operation.body is not None:
        statuses |= _WITH_BODY
    if operation.generates:
        statuses |= _GENERATING
    if operation.may_wait:
        statuses[503] = _WITH_BODY[503]
    if operation.missing:
        statuses[404] = "there is no such thing"
    # The other families answer a wrong field with 400 as well.
    if _error_type(operation) != NativeError and (wrong_field := statuses.pop(422, "")):
        statuses[400] += f", or {wrong_field}"
    content = {"application/json": {"schema": schemas[_error_type(operation)]}}
    responses: dict[str, Any] = {}
    for status, reason in sorted(statuses.items()):
        responses[str(status)] = {"description": reason, "content": content}
        if status in (429, 503):
            responses[str(status)]["headers"] = _RETRY_AFTER
    return responses


def _error_type(operation: Operation) -> type[msgspec.Struct]:
    """Return the type of the errors at an operation's path."""
    families: dict[str, type[msgspec.Struct]] = {"v1": OpenAIError, "api": OllamaError}
    return families.get(operation.path.split("/")[1], NativeError)


class Health(msgspec.Struct, kw_only=True):
    """How a process is."""

    status: str


COMMON = (
    Operation("GET", "/healthz", "getHealth", "Whether the process lives", answer=Health),
    Operation(
        "GET", "/readyz", "getReadiness", "Whether it would answer", answer=Health, may_wait=True
    ),
    Operation(
        "GET", "/metrics", "getMetrics", "Metrics for Prometheus", answer=str, media="text/plain"
    ),
    Operation("GET", "/openapi.json", "getDocument", "This document", answer=dict[str, Any]),
)
