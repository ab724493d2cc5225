"""What a cluster says of a deployment that cannot work."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, until


@pytest.fixture
def broken(cluster: Cluster) -> Iterator["Broken"]:
    broken = Broken(cluster)
    yield broken
    cluster.kubectl("delete", "ksvc", "broken", "--ignore-not-found", "--wait=false")


class Broken:
    """A copy of generate with one thing wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._spec = cluster.get("ksvc", "generate")["spec"]["template"]

    def deploy(self, **container: Any) -> None:
        template = json.loads(json.dumps(self._spec))
        template["spec"]["containers"][0].update(container)
        annotations = template["metadata"]["annotations"]
        annotations["serving.knative.dev/progress-deadline"] = "30s"
        service = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": "broken", "namespace": self._cluster.namespace},
            "spec": {"template": template},
        }
        self._cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(service))

    def says(self) -> str:
        """Return what `kubectl describe ksvc` then shows as the reason."""

        def failed() -> str:
            conditions = self._cluster.get("ksvc", "broken").get("status", {}).get("conditions", [])
            messages = [item.get("message", "") for item in conditions if item["status"] == "False"]
            return "\n".join(messages)

        return until(failed, 150, "the broken service was not found out")


def test_a_wrong_image_is_named(broken: Broken) -> None:
    broken.deploy(image="localhost:32000/pibloom-generate@sha256:" + "0" * 64)
    assert "pibloom-generate@sha256:000" in broken.says()


def test_a_missing_model_is_named(broken: Broken) -> None:
    environment = [{"name": "PIBLOOM_MODEL", "value": "/model/absent.bloom"}]
    broken.deploy(env=environment)
    assert "/model/absent.bloom" in broken.says()


def test_too_little_memory_is_named(broken: Broken, cluster: Cluster) -> None:
    """Knative itself has no words for it; the pod has."""
    broken.deploy(resources={"limits": {"memory": "24Mi"}, "requests": {"memory": "8Mi"}})

    def reasons() -> set[str]:
        states = [
            container[state]["terminated"]["reason"]
            for pod in cluster.pods("broken")
            for container in pod["status"].get("containerStatuses", [])
            for state in ("state", "lastState")
            if "terminated" in container[state]
        ]
        return set(states) & {"OOMKilled"}

    assert until(reasons, 60, "no pod was ended for its memory") == {"OOMKilled"}
