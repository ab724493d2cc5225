"""What kustomize makes of knative/ is what Knative takes, and what the services take."""

import copy
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

import ui.settings
from functions.server.application import AFTER_GRACE
from functions.settings import Settings

KNATIVE = Path(__file__).parents[2] / "knative"
SCHEMAS = Path(__file__).with_name("schemas")
OVERLAYS = sorted(path.name for path in (KNATIVE / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KNATIVE / "components").iterdir())
VERSIONS = {"1.8": "v0.35.0", "1.21": "v0.48.0"}
SERVICES = ("generate", "tokenize", "ui")
# Every overlay as it is, with each component, and with all of them.
BUILDS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in ((), *((name,) for name in COMPONENTS), tuple(COMPONENTS))
]
NOT_FOR_1_8 = {"local", "seccomp"}

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
every_service = pytest.mark.parametrize("service", SERVICES)
every_build = pytest.mark.parametrize(
    ("overlay", "components"), BUILDS, ids=["+".join((name, *more)) for name, more in BUILDS]
)


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """Return the objects that a kustomization makes."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def services(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the Knative services among objects, by name."""
    return {
        item["metadata"]["name"]: item
        for item in objects
        if item["apiVersion"].startswith("serving.knative.dev/")
    }


@functools.cache
def overlay_services(name: str) -> dict[str, dict[str, Any]]:
    """Return an overlay's services."""
    return services(kustomize(KNATIVE / "overlays" / name))


def revision(overlay: str, service: str) -> dict[str, Any]:
    """Return the specification of a service's pods."""
    spec: dict[str, Any] = overlay_services(overlay)[service]["spec"]["template"]["spec"]
    return spec


def container(overlay: str, service: str) -> dict[str, Any]:
    """Return the one container of a service."""
    (only,) = revision(overlay, service)["containers"]
    found: dict[str, Any] = only
    return found


def environment(overlay: str, service: str) -> dict[str, str]:
    """Return what a container's environment says; empty where a secret says it."""
    items = container(overlay, service).get("env", [])
    return {item["name"]: item.get("value", "") for item in items}


def problems(service: dict[str, Any], knative: str) -> list[str]:
    """Return what a release of Knative has against a service."""
    schema = json.loads((SCHEMAS / f"serving-{VERSIONS[knative]}.json").read_text())
    errors = Draft7Validator(schema).iter_errors(service)
    return [f"{error.json_path}: {error.message}" for error in errors]


@every_build
def test_knative_knows_every_field(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    def beside(*path: str) -> str:
        return os.path.relpath(KNATIVE.joinpath(*path), tmp_path)

    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [beside("overlays", overlay)],
                "components": [beside("components", name) for name in components],
            }
        )
    )
    built = services(kustomize(tmp_path))
    assert sorted(built) == sorted(SERVICES)
    old = not NOT_FOR_1_8 & {overlay, *components}
    for version in ("1.8", "1.21") if old else ("1.21",):
        for service in built.values():
            assert problems(service, version) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "template", "spec", "containerConcurency"), 1),  # no such field
        (("spec", "template", "spec", "nodeSelector"), {"disk": "fast"}),  # needs a feature flag
        (("spec", "template", "spec", "timeoutSeconds"), "300"),
        (("spec", "template", "spec", "containers"), None),
        (("spec", "template", "metadata", "annotations", "a"), 1),
        (("spec", "template", "spec", "containers", 0, "resources", "limits", "memory"), "2 GB"),
        (("spec", "template", "spec", "containers", 0, "securityContext", "sudo"), False),
    ],
)
def test_a_field_that_is_wrong_is_found(version: str, path: tuple[Any, ...], value: Any) -> None:
    service = copy.deepcopy(overlay_services("microk8s")["generate"])
    assert problems(service, version) == []
    place: Any = service
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(problems(service, version)) == 1


def test_1_8_refuses_what_came_later() -> None:
    assert all(problems(service, "1.8") for service in overlay_services("local").values())


@every_overlay
@every_service
def test_settings_are_known(overlay: str, service: str) -> None:
    read = ui.settings.Settings.read if service == "ui" else Settings.read
    read(environment(overlay, service))


@every_overlay
def test_the_chat_calls_the_functions_of_its_namespace(overlay: str) -> None:
    for function in ("generate", "tokenize"):
        namespace = overlay_services(overlay)[function]["metadata"]["namespace"]
        url = environment(overlay, "ui")[f"PIBLOOM_{function.upper()}_URL"]
        assert url == f"http://{function}.{namespace}.svc.cluster.local"


@every_overlay
@pytest.mark.parametrize("service", ["generate", "tokenize"])
def test_a_pod_ends_within_knatives_time(overlay: str, service: str) -> None:
    settings = Settings.read(environment(overlay, service))
    timeout = revision(overlay, service)["timeoutSeconds"]
    assert settings.grace + AFTER_GRACE <= timeout


@every_overlay
def test_generations_end_by_themselves_before_anything_ends_them(overlay: str) -> None:
    settings = Settings.read(environment(overlay, "generate"))
    assert settings.deadline <= settings.grace <= revision(overlay, "generate")["timeoutSeconds"]


@every_overlay
@every_service
def test_no_timeout_is_above_knatives_own_maximum(overlay: str, service: str) -> None:
    assert revision(overlay, service)["timeoutSeconds"] <= 600


@every_overlay
def test_a_pod_gets_what_it_runs_at_once_and_others_the_rest(overlay: str) -> None:
    settings = Settings.read(environment(overlay, "generate"))
    concurrency = revision(overlay, "generate")["containerConcurrency"]
    assert concurrency == settings.max_batch


@every_overlay
@every_service
def test_containers_have_no_privileges(overlay: str, service: str) -> None:
    context = container(overlay, service)["securityContext"]
    # Knative 1.8 has no field for it; the component `seccomp` adds it for newer ones.
    seccomp = context.pop("seccompProfile", None)
    assert seccomp == ({"type": "RuntimeDefault"} if overlay in NOT_FOR_1_8 else None)
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "capabilities": {"drop": ["ALL"]},
    }
    assert revision(overlay, service)["automountServiceAccountToken"] is False


@every_overlay
@every_service
def test_the_scheduler_knows_what_a_container_needs(overlay: str, service: str) -> None:
    resources = container(overlay, service)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    # No limit of the processor: what is idle may be used.
    assert set(resources["limits"]) == {"memory"}


@every_overlay
@every_service
def test_build_sh_puts_in_the_images_digests(overlay: str, service: str, tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    name = f"pibloom-{service}"
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath(KNATIVE / "overlays" / overlay, tmp_path)],
                "images": [{"name": name, "newName": f"pi:32000/{name}", "digest": digest}],
            }
        )
    )
    built = services(kustomize(tmp_path))[service]["spec"]["template"]["spec"]
    assert built["containers"][0]["image"] == f"pi:32000/{name}@{digest}"


@every_overlay
@every_service
def test_a_reply_may_begin_while_its_request_is_still_open(overlay: str, service: str) -> None:
    template = overlay_services(overlay)[service]["spec"]["template"]
    assert template["metadata"]["annotations"]["features.knative.dev/http-full-duplex"] == "Enabled"
