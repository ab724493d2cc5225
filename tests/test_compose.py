"""compose.yaml runs the same images as the cluster does, held to the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import ui.settings
from cli.up import SERVICES
from functions.server.application import AFTER_GRACE
from functions.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
every_service = pytest.mark.parametrize("service", SERVICES)


def knative(service: str) -> dict[str, Any]:
    """Return the container of a service, as a cluster runs it."""
    manifest = yaml.safe_load((ROOT / "knative" / "base" / f"{service}.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def test_all_services_are_there() -> None:
    assert set(COMPOSE) == set(SERVICES)


@every_service
def test_images_are_named_as_build_sh_names_them(service: str) -> None:
    assert 'image() { echo "$registry/pibloom-$1:$tag-$2"; }' in (ROOT / "build.sh").read_text()
    wanted = f"${{REGISTRY:-localhost:32000}}/pibloom-{service}:${{TAG:-latest-amd64}}"
    assert COMPOSE[service]["image"] == wanted


@every_service
def test_only_this_machine_reaches_a_port(service: str) -> None:
    (port,) = COMPOSE[service]["ports"]
    outside = {"ui": 8080, "generate": 8081, "tokenize": 8082}[service]
    assert port == f"127.0.0.1:{outside}:8080"


@every_service
def test_containers_have_no_privileges(service: str) -> None:
    found = COMPOSE[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "user", "volumes", "network_mode", "cap_add"} & set(found)


@every_service
def test_memory_and_probe_are_the_clusters(service: str) -> None:
    limit = knative(service)["resources"]["limits"]["memory"]
    assert COMPOSE[service]["mem_limit"] == limit.removesuffix("i").lower()
    path = knative(service)["readinessProbe"]["httpGet"]["path"]
    assert f"http://127.0.0.1:8080{path}" in COMPOSE[service]["healthcheck"]["test"][-1]


def test_the_chat_finds_the_functions() -> None:
    environment = COMPOSE["ui"]["environment"]
    ui.settings.Settings.read({**environment, "PIBLOOM_UI_SECRET": ""})
    for function in ("generate", "tokenize"):
        assert environment[f"PIBLOOM_{function.upper()}_URL"] == f"http://{function}:8080"


@pytest.mark.parametrize("service", ["generate", "tokenize"])
def test_what_runs_may_end_first(service: str) -> None:
    settings = Settings.read(COMPOSE[service].get("environment", {}))
    seconds = re.fullmatch(r"(\d+)s", COMPOSE[service]["stop_grace_period"])
    assert seconds
    assert int(seconds[1]) >= settings.grace + AFTER_GRACE
