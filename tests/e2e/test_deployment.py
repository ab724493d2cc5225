"""The three services on a cluster: ready, gone when nobody asks, and back."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import DEPLOYMENT, Cluster
from tests.e2e.conftest import SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_kubectl_apply_makes_it_ready(cluster: Cluster, service: str) -> None:
    status = cluster.get("ksvc", service)["status"]
    assert {item["type"]: item["status"] for item in status["conditions"]}["Ready"] == "True"
    with cluster.client(service) as http:
        assert http.get("/healthz").json() == {"status": "ok"}


def test_kn_service_apply_makes_them_ready(cluster: Cluster, tmp_path: Path) -> None:
    if shutil.which("kn") is None:
        pytest.skip("kn is not installed")
    manifests = cluster.kubectl("kustomize", str(DEPLOYMENT)).split("---\n")
    for service in SERVICES:
        text = next(part for part in manifests if f"\n  name: {service}\n" in part)
        file = tmp_path / f"{service}.yaml"
        file.write_text(text)
        command = ["kn", "service", "apply", service, "-n", cluster.namespace, "-f", str(file)]
        subprocess.run(command, check=True, timeout=300)
        cluster.wait_ready(service)


def test_nothing_is_left_of_the_functions_when_nobody_asks(cluster: Cluster) -> None:
    cluster.wait_for_zero("generate")
    cluster.wait_for_zero("tokenize")
    assert len(cluster.pods("ui", ending=False)) == 1


def test_the_chat_is_reachable_while_the_functions_sleep(cluster: Cluster) -> None:
    cluster.wait_for_zero("generate")
    with cluster.client("ui") as http:
        page = http.get("/")
    assert page.status_code == 200
    assert "<title>piBLOOM</title>" in page.text


def test_tokenize_answers_from_zero(cluster: Cluster) -> None:
    cluster.wait_for_zero("tokenize")
    with cluster.client("tokenize") as http:
        ids = http.post("/", json={"text": "Once upon a time"}).json()["ids"]
        text = http.post("/detokenize", json={"ids": ids}).json()["text"]
    assert text == "Once upon a time"


@pytest.mark.parametrize("service", SERVICES)
def test_pods_have_no_privileges(cluster: Cluster, service: str) -> None:
    with cluster.client(service) as http:
        http.get("/healthz")
    pod = cluster.pods(service, ending=False)[0]
    script = "import os; print(os.getuid(), os.access('/app', os.W_OK), os.access('/', os.W_OK))"
    assert cluster.run_in(pod, script).split() == ["65532", "False", "False"]
