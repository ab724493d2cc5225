"""The document of both functions: OpenAPI as it is defined, of every route and every answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.functions.conftest import Generate

# The schema that OpenAPI's authors publish of documents of this version.
OPENAPI = json.loads((Path(__file__).parent / "schemas" / "openapi-3.1.json").read_text())


@pytest.fixture(params=["generate", "tokenize"])
def client(request: pytest.FixtureRequest, generate: Generate, tokenize: Any) -> Any:
    return generate.client if request.param == "generate" else tokenize


@pytest.fixture
def document(client: Any) -> Any:
    return client.get("/openapi.json").json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def schemas_in(value: Any) -> Iterator[Any]:
    """Yield what stands under `schema`, wherever it is, and the components."""
    if isinstance(value, list):
        for each in value:
            yield from schemas_in(each)
    elif isinstance(value, dict):
        yield from (value["schemas"].values() if isinstance(value.get("schemas"), dict) else ())
        for name, each in value.items():
            if name == "schema":
                yield each
            yield from schemas_in(each)


def test_the_document_is_one_of_openapi(document: Any) -> None:
    assert not [error.message for error in Draft202012Validator(OPENAPI).iter_errors(document)]
    for schema in schemas_in(document):
        Draft202012Validator.check_schema(schema)


def test_every_reference_of_the_document_leads_somewhere(document: Any) -> None:
    names = [
        part.partition('"')[0]
        for part in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]
    ]
    assert names
    assert set(names) <= set(document["components"]["schemas"])


def test_every_operation_has_a_name_of_its_own(document: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert all(name.isidentifier() for name in names)
    assert len(set(names)) == len(names)


def test_every_200_has_a_schema(document: Any) -> None:
    for method, path, operation in operations(document):
        if path.startswith("/v1/responses/"):  # none is kept
            assert set(operation["responses"]) == {"400", "401", "404", "500"}
            continue
        content = operation["responses"]["200"]["content"]
        assert content, (method, path)
        for media in content.values():
            assert media["schema"], (method, path)


def test_a_field_that_may_be_left_out_is_no_required_one_to_generators(document: Any) -> None:
    """openapi-typescript takes each property with a default as one that must be given."""
    assert '"default":' not in json.dumps(document)


def test_every_list_says_what_it_holds(document: Any) -> None:
    """openapi-python-client leaves a type out that has a list which does not."""

    def lists(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            for each in value:
                yield from lists(each)
        elif isinstance(value, dict):
            if value.get("type") == "array":
                yield value
            for each in value.values():
                yield from lists(each)

    for each in lists(document):
        assert isinstance(each.get("items"), dict) or len(each["prefixItems"]) == each["maxItems"]


def test_the_document_tells_of_headers_keys_and_both_kinds_of_error(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("scheme") or scheme.get("name") for scheme in schemes.values()} == {
        "bearer",
        "X-API-Key",
    }
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status in ("429", "503"):
                assert "Retry-After" in response["headers"]
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]["$ref"]
                family = {"v1": "OpenAIError", "api": "OllamaError"}
                assert schema.endswith("/" + family.get(path.split("/")[1], "NativeError"))
        if "504" in operation["responses"]:
            names = [each["name"] for each in operation["parameters"]]
            assert "X-Request-Timeout" in names
