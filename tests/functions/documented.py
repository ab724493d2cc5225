"""Checking answers against what /openapi.json says of them."""

import json
from typing import Any

from jsonschema import Draft202012Validator


def closed(schema: Any) -> Any:
    """The same schema, in which nothing is let pass that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if isinstance(found.get("properties"), dict) and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found


def validator(document: Any, schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(closed(schema | {"components": document["components"]}))


def errors(document: Any, schema: dict[str, Any], value: object) -> list[str]:
    return [error.message for error in validator(document, schema).iter_errors(value)]


def content_of(document: Any, method: str, path: str, status: int = 200) -> dict[str, Any]:
    """What the document says of an answer, by its media type."""
    operation = document["paths"][path][method.lower()]
    content: dict[str, Any] = operation["responses"][str(status)]["content"]
    return content


def check_answer(client: Any, method: str, path: str, body: object) -> None:
    """Check that an answer has the status 200, the media type and the schema of the document."""
    document = client.get("/openapi.json").json
    response = client.open(path.replace("{name}", "fake"), method=method, json=body)
    assert response.status_code == 200, response.text
    media = response.mimetype
    schema = content_of(document, method, path)[media]["schema"]
    value = json.loads(response.data) if media == "application/json" else response.text
    assert not errors(document, schema, value)
