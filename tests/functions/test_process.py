"""The metrics of the process, compared with those of prometheus_client."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from functions import version
from functions.metrics import Registry
from functions.process import register
from tests.functions.conftest import Generate

# How far two readings, one after the other, may lie apart.
APART = {"cpu_seconds": 5.0, "resident_memory_bytes": 2e7, "virtual_memory_bytes": 5e7}


def expected() -> dict[str, Any]:
    registry = CollectorRegistry()
    return {family.name: family for family in ProcessCollector(registry=registry).collect()}


@pytest.mark.parametrize("name", expected())
def test_the_process_is_told_of_as_prometheus_client_does(name: str) -> None:
    metrics = Registry()
    register(metrics)
    found = {family.name: family for family in parse(metrics.text())}[name]
    theirs = expected()[name]
    assert (found.type, found.documentation) == (theirs.type, theirs.documentation)
    (ours,), (other,) = found.samples, theirs.samples
    assert ours.name == other.name
    apart = APART.get(name.removeprefix("process_"), 2.0)
    assert ours.value == pytest.approx(other.value, abs=apart)


def info(client: Any, name: str) -> dict[str, str]:
    families = {family.name: family for family in parse(client.get("/metrics").text)}
    (sample,) = families[name].samples
    assert sample.value == 1
    labels: dict[str, str] = sample.labels
    return labels


def test_build_and_model_are_told(generate: Generate, tokenize: Any) -> None:
    assert info(generate.client, "pibloom_build_info") == {"version": version()}
    reported = info(generate.client, "pibloom_model_info")
    assert {"name", "engine", "bits", "max_context", "vocab_size"} == set(reported)
    assert reported["name"] == reported["engine"] == "fake"
    assert info(tokenize, "pibloom_build_info") == {"version": version()}
    reported = {"name": "pibloom-demo", "vocab_size": "8192"}
    assert info(tokenize, "pibloom_model_info") == reported
