"""Knative's own schema of its services, and the names of its settings, out of its Go module.

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

import yaml

CONFIGS = ("autoscaler", "defaults", "deployment")
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


def service_schema(crd: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a Knative service, from its CRD."""
    (served,) = crd["spec"]["versions"]
    schema = closed(served["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # has a schema of its own in Kubernetes
    return schema


def main(versions: list[str]) -> None:
    """Write what is kept of each version."""
    for version in versions:
        download = ["go", "mod", "download", "-json", f"knative.dev/serving@{version}"]
        said = json.loads(subprocess.run(download, check=True, capture_output=True).stdout)
        core = Path(said["Dir"]) / "config" / "core"
        crd = yaml.safe_load((core / "300-resources" / "service.yaml").read_text())
        settings = {}
        for name in CONFIGS:
            config = yaml.safe_load((core / "configmaps" / f"{name}.yaml").read_text())
            settings[name] = sorted(yaml.safe_load(config["data"]["_example"]))
        for kind, found in (("serving", service_schema(crd)), ("settings", settings)):
            text = json.dumps(found, indent=1, sort_keys=True)
            (SCHEMAS / f"{kind}-{version}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
