"""Replies that stream through Knative: unbuffered, and never without a last event."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.cluster import REVISION_LABEL, SERVICE_LABEL, Cluster, Stream, in_parallel, until
from tests.e2e.conftest import PROMPT


class Running:
    """Streams that run while a test does something to their pods."""

    def __init__(self, cluster: Cluster, body: dict[str, Any], count: int = 1) -> None:
        self.replies: list[Stream] = []
        self._thread = threading.Thread(target=self._run, args=(cluster, body, count))
        self._thread.start()

    def _run(self, cluster: Cluster, body: dict[str, Any], count: int) -> None:
        self.replies = in_parallel(count, lambda _: cluster.stream("generate", body))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> list[Stream]:
        self._thread.join()
        return self.replies


@contextmanager
def one_after_the_other(cluster: Cluster, body: dict[str, Any]) -> Iterator[list[Stream]]:
    """Ask again as soon as a reply has ended: one streams at any time, until the block ends."""
    replies: list[Stream] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            replies.append(cluster.stream("generate", body))

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        try:
            yield replies
        finally:
            ended.set()
    asking.result()


def wait_until_streaming(cluster: Cluster) -> None:
    """Wait until a pod is ready, and a moment more, so that it writes."""
    until(lambda: ready_pods(cluster), 120, "no pod of generate became ready")
    time.sleep(2)


def ready_pods(cluster: Cluster) -> list[dict[str, Any]]:
    return [
        pod
        for pod in cluster.pods("generate", ending=False)
        if any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in pod["status"].get("conditions", [])
        )
    ]


def test_from_zero_the_first_reply_streams_to_its_end(cluster: Cluster) -> None:
    cluster.wait_for_zero("generate")
    reply = cluster.stream("generate", {"prompt": PROMPT, "max_new_tokens": 8, "seed": 1})
    assert reply.status == 200
    assert reply.done["usage"]["completion_tokens"] == 8


def test_tokens_arrive_as_they_are_made(cluster: Cluster, long_reply: dict[str, Any]) -> None:
    reply = cluster.stream("generate", long_reply)
    made_s = reply.done["timings"]["decode_ms"] / 1000
    arrived_s = reply.tokens[-1] - reply.tokens[0]
    assert arrived_s == pytest.approx(made_s, rel=0.1), "something on the way collects tokens"
    pauses = [after - before for before, after in zip(reply.tokens, reply.tokens[1:], strict=False)]
    assert max(pauses) < made_s / 4, "tokens arrive in heaps"


def test_deleting_its_pod_cuts_no_stream(cluster: Cluster, long_reply: dict[str, Any]) -> None:
    running = Running(cluster, long_reply)
    wait_until_streaming(cluster)
    for pod in ready_pods(cluster):
        cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    assert running.alive, "the stream had ended before its pod was deleted"
    (reply,) = running.end()
    assert reply.done["usage"]["completion_tokens"] == long_reply["max_new_tokens"]


def test_draining_its_node_cuts_no_stream(cluster: Cluster, long_reply: dict[str, Any]) -> None:
    running = Running(cluster, long_reply)
    wait_until_streaming(cluster)
    node = ready_pods(cluster)[0]["spec"]["nodeName"]
    selector = f"--pod-selector={SERVICE_LABEL}=generate"
    assert running.alive, "the stream had ended before its node was drained"
    try:
        # Waits until the pod is gone, and so until the stream has ended.
        cluster.kubectl("drain", node, selector, "--ignore-daemonsets", "--timeout=300s")
    finally:
        cluster.kubectl("uncordon", node)
    (reply,) = running.end()
    assert reply.done["usage"]["completion_tokens"] == long_reply["max_new_tokens"]


@pytest.mark.usefixtures("as_deployed")
def test_a_new_revision_cuts_no_stream(cluster: Cluster, long_reply: dict[str, Any]) -> None:
    before = cluster.ready_revision("generate")
    with one_after_the_other(cluster, long_reply) as replies:
        wait_until_streaming(cluster)
        cluster.replace_environment("generate", PIBLOOM_MAX_QUEUE="31")
        until(lambda: cluster.ready_revision("generate") != before, 120, "nothing was rolled out")
    for reply in replies:
        assert reply.done["usage"]["completion_tokens"] == long_reply["max_new_tokens"]
    asked = cluster.stream("generate", {"prompt": PROMPT, "max_new_tokens": 2})
    assert asked.done["usage"]["completion_tokens"] == 2


@pytest.mark.usefixtures("as_deployed")
def test_a_pod_without_grace_ends_its_stream_with_an_error_event(
    cluster: Cluster, long_reply: dict[str, Any]
) -> None:
    """Told to end at once, a process still gives its streams a last event."""
    cluster.replace_environment("generate", PIBLOOM_GRACE="0")
    cluster.wait_ready("generate")
    running = Running(cluster, long_reply)
    wait_until_streaming(cluster)
    # Past queue-proxy, which would hold the signal back until the stream has ended.
    cluster.run_in(ready_pods(cluster)[-1], "import os, signal; os.kill(1, signal.SIGTERM)")
    (reply,) = running.end()
    assert reply.last == "error"
    assert reply.events[-1][2]["error"]["type"] == "draining"


@pytest.fixture
def short_window(cluster: Cluster) -> Iterator[None]:
    """Let pods go that were idle for Knative's shortest time."""
    window, before = "autoscaling.knative.dev/window", cluster.ready_revision("generate")
    cluster.annotate("generate", window, "6s")
    until(lambda: cluster.ready_revision("generate") != before, 120, "nothing was rolled out")
    yield
    cluster.annotate("generate", window, None)
    cluster.wait_ready("generate")


@pytest.mark.usefixtures("short_window")
def test_scaling_down_cuts_no_stream(cluster: Cluster, long_reply: dict[str, Any]) -> None:
    """Many short streams wake several pods; of those, some go while long ones run."""
    revision = cluster.ready_revision("generate")
    short = {**long_reply, "max_new_tokens": max(1, long_reply["max_new_tokens"] // 8)}

    def gone(pod: dict[str, Any]) -> bool:
        return (
            pod["metadata"]["labels"][REVISION_LABEL] == revision
            and "deletionTimestamp" in pod["metadata"]
        )

    with (
        cluster.watching("generate") as watch,
        one_after_the_other(cluster, long_reply) as replies,
    ):
        wait_until_streaming(cluster)
        assert all(in_parallel(12, lambda _: cluster.stream("generate", short).done))
        until(lambda: watch.first(gone), 120, "no pod was taken away")
    for reply in replies:
        assert reply.done["usage"]["completion_tokens"] == long_reply["max_new_tokens"]
