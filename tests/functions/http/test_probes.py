"""The routes by which a cluster watches a process."""

import pytest

from model.serving import watch
from tests.functions.conftest import Generate
from tests.functions.servers import wait_until


def test_an_engine_that_hangs_is_told_by_the_probes(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STUCK", 0.2)
    assert generate.client.get("/healthz").status_code == 200
    generate.engine.running.clear()
    late = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": "0.5"})
    assert late.status_code == 504
    wait_until(lambda: generate.client.get("/healthz").status_code == 500)
    assert generate.client.get("/readyz").status_code == 500
    generate.engine.running.set()
    wait_until(lambda: generate.client.get("/healthz").status_code == 200)
