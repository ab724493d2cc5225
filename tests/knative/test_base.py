"""The services as they are kept by hand, against Knative's schemas: no kubectl is needed."""

from typing import Any

import pytest
import yaml

from tests.knative.test_manifests import KNATIVE, SERVICES, VERSIONS, problems


def service_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KNATIVE / "base" / f"{name}.yaml").read_text())
    return found


@pytest.mark.parametrize("knative", VERSIONS)
@pytest.mark.parametrize("name", SERVICES)
def test_knative_knows_every_field(name: str, knative: str) -> None:
    assert problems(service_of(name), knative) == []


@pytest.mark.parametrize("name", SERVICES)
def test_no_wait_ends_before_the_request_may(name: str) -> None:
    """Knative's own 300 s for the first byte also end a socket that is older, since 1.19."""
    spec = service_of(name)["spec"]["template"]["spec"]
    assert spec.get("responseStartTimeoutSeconds", 300) >= spec["timeoutSeconds"]
