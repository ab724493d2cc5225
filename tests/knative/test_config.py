"""What knative/config sets is known to Knative, and the same however it was installed."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).parents[2] / "knative" / "config"
SCHEMAS = Path(__file__).with_name("schemas")
NAMES = ("autoscaler", "defaults", "deployment")


def read(name: str) -> dict[str, Any]:
    """Return a patch."""
    patch: dict[str, Any] = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    return patch


def run(tmp_path: Path, kubectl: str) -> list[str]:
    """Return how the script calls a kubectl that is a shell script."""
    program = tmp_path / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{kubectl}\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run([CONFIG / "apply.sh"], env={"PATH": path}, check=True, timeout=30)
    calls = (tmp_path / "calls").read_text().splitlines()
    return [call for call in calls if call.startswith("patch --namespace knative-serving ")]


@pytest.mark.parametrize("version", ["v0.35.0", "v0.48.0"])
@pytest.mark.parametrize("name", NAMES)
def test_every_setting_exists(name: str, version: str) -> None:
    known = json.loads((SCHEMAS / f"settings-{version}.json").read_text())[name]
    data = read(name)["data"]
    assert data
    assert set(data) <= set(known)
    assert all(isinstance(value, str) for value in data.values())


def test_the_operator_gets_the_same() -> None:
    assert read("operator") == {"spec": {"config": {name: read(name)["data"] for name in NAMES}}}


def test_without_the_operator_each_config_map_is_patched(tmp_path: Path) -> None:
    calls = run(tmp_path, '[ "$1" != get ]')
    assert [call.split()[3] for call in calls] == [f"configmap/config-{name}" for name in NAMES]
    assert [call.split()[-1] for call in calls] == [f"{name}.yaml" for name in NAMES]


def test_with_the_operator_only_its_own_object_is_patched(tmp_path: Path) -> None:
    (call,) = run(tmp_path, "exit 0")
    assert call.split()[3] == "knativeserving/knative-serving"
    assert call.split()[-1] == "operator.yaml"
