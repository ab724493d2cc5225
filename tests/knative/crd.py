"""Knative's own schema of its services, taken out of the Go module that a release is made of.

    .venv/bin/python -m tests.knative.crd v0.35.0 v0.48.0    # writes schemas/; needs Go

What is kept is what a JSON Schema validator can check. Unknown fields are refused, as the API
server refuses them; so are those that need a feature flag, which the webhook refuses on a cluster
as it comes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import yaml

MODULE = "knative.dev/serving"
RESOURCE = "config/core/300-resources/service.yaml"
SCHEMAS = Path(__file__).with_name("schemas")
KEPT = ("type", "required", "pattern", "anyOf", "enum")


def behind_flag(schema: dict[str, Any]) -> bool:
    """Whether an administrator must allow the field first, which the CRD says in words only."""
    described = (schema, schema.get("items", {}))
    return any("behind a feature flag" in item.get("description", "") for item in described)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a CRD's schema as JSON Schema that refuses what is not in it."""
    found = {key: schema[key] for key in KEPT if key in schema}
    fields: dict[str, Any] = schema.get("properties", {})
    if fields:
        found["properties"] = {
            name: closed(field) for name, field in fields.items() if not behind_flag(field)
        }
    if "items" in schema:
        found["items"] = closed(schema["items"])
    if "additionalProperties" in schema:
        found["additionalProperties"] = closed(schema["additionalProperties"])
    elif schema.get("type") == "object":
        found["additionalProperties"] = schema.get("x-kubernetes-preserve-unknown-fields", False)
    return found


def service_schema(version: str) -> dict[str, Any]:
    """Return the schema of a Knative service, as a version of the module has it."""
    download = ["go", "mod", "download", "-json", f"{MODULE}@{version}"]
    said = json.loads(subprocess.run(download, check=True, capture_output=True).stdout)
    with ZipFile(said["Zip"]) as files:
        crd = yaml.safe_load(files.read(f"{MODULE}@{version}/{RESOURCE}"))
    (served,) = crd["spec"]["versions"]
    schema = closed(served["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # has a schema of its own in Kubernetes
    return schema


if __name__ == "__main__":
    for version in sys.argv[1:]:
        text = json.dumps(service_schema(version), indent=1, sort_keys=True)
        (SCHEMAS / f"serving-{version}.json").write_text(text + "\n")
