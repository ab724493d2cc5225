"""What was answered is counted."""

import json
import signal
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.functions.clients import post_text
from tests.functions.servers import Start, wait_until


def test_what_was_answered_is_counted(tokenize: Any) -> None:
    for reply in (post_text(tokenize), tokenize.post("/", json={}), tokenize.get("/nowhere/1")):
        reply.close()  # the last byte is sent
    scraped = tokenize.get("/metrics")
    assert scraped.content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse(scraped.text)}
    counted = {
        (s.labels["path"], s.labels["code"]): s.value for s in families["pibloom_requests"].samples
    }
    assert counted[("/", "200")] == counted[("/", "422")] == counted[("other", "404")] == 1
    seconds = {s.name: s.value for s in families["pibloom_request_seconds"].samples}
    assert seconds["pibloom_request_seconds_count"] == 3


def test_strangers_cannot_fill_the_memory_with_counters(tokenize: Any) -> None:
    for number in range(20):
        tokenize.post(f"/stranger{number}", data=b"x" * (1 << 21))
        tokenize.open("/", method=f"FOO{number}")
        tokenize.get(f"/v1/models/{number}")
    lines = [x for x in tokenize.get("/metrics").text.splitlines() if "requests_total{" in x]
    assert len(lines) < 8


def test_prompts_are_never_logged(start: Start) -> None:
    server = start("Hello", 0.0, PIBLOOM_LOG_LEVEL="DEBUG")
    wait_until(server.is_ready)
    connection = server.connect()
    for body in ('{"prompt": "my-secret"}', '{"prompt": "my-secret", "x": 1}', '"my-secret'):
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=20)
    lines = output.decode().splitlines()
    assert sum('"path":"/"' in line for line in lines) == 3
    assert "secret" not in output.decode()
    for line in lines:
        json.loads(line)
