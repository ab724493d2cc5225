"""Against the cluster that KUBECONFIG names; everything here is skipped when there is none."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import DEPLOYMENT, Cluster, Unavailable

SERVICES = ("generate", "tokenize", "ui")
PROMPT = "Once upon a time"
LONG_S = 12.0  # seconds that a long stream should take


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    if not (DEPLOYMENT / "kustomization.yaml").exists():
        pytest.skip("nothing was deployed: ./build.sh --deploy writes build/deploy")
    try:
        cluster = Cluster()
    except Unavailable as reason:
        pytest.skip(str(reason))
    cluster.kubectl("apply", "--kustomize", str(DEPLOYMENT))
    for service in SERVICES:
        cluster.wait_ready(service)
    return cluster


@pytest.fixture
def as_deployed(cluster: Cluster) -> Iterator[None]:
    """Undo what a test does to the services."""
    yield
    cluster.kubectl("apply", "--kustomize", str(DEPLOYMENT))
    for service in SERVICES:
        cluster.wait_ready(service)


@pytest.fixture(scope="session")
def long_reply(cluster: Cluster) -> dict[str, Any]:
    """A request whose reply takes about `LONG_S` seconds, whatever the model and the machine."""
    body = {"prompt": PROMPT, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 1}
    for _ in range(2):  # the first one may wake the function
        speed = cluster.stream("generate", {**body, "max_new_tokens": 64}).done["timings"]
    with cluster.client("generate") as http:
        room = http.get("/").json()["model"]["max_context"] - 100
    tokens = int(speed["tokens_per_second"] * LONG_S)
    if tokens > room:
        pytest.skip(f"the model is so fast that its context of {room} tokens takes no {LONG_S} s")
    return {**body, "max_new_tokens": tokens}
