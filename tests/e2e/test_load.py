"""More requests at once than the cluster can take."""

from tests.e2e.cluster import Cluster, Stream, in_parallel
from tests.e2e.conftest import PROMPT

BURST = 50


def test_of_a_burst_at_zero_no_request_is_lost(cluster: Cluster) -> None:
    cluster.wait_for_zero("generate")
    body = {"prompt": PROMPT, "max_new_tokens": 24}
    replies = in_parallel(BURST, lambda index: cluster.stream("generate", {**body, "seed": index}))
    assert len(replies) == BURST
    for reply in replies:
        if reply.status == 200:
            assert reply.last in ("done", "error"), reply.broken
            continue
        assert reply.status in (429, 503)
        assert reply.retry_after
    assert sum(reply.last == "done" for reply in replies) >= BURST // 2


def test_of_many_short_streams_none_is_cut(cluster: Cluster) -> None:
    """A reply that begins at once must not make Go's proxies close the request under it.

    Without the annotation features.knative.dev/http-full-duplex one in sixteen was cut here.
    """
    body = {"prompt": PROMPT, "max_new_tokens": 1}
    cluster.stream("generate", body)

    def ask_again_and_again(_: int) -> list[Stream]:
        return [cluster.stream("generate", body) for _ in range(20)]

    replies = [each for found in in_parallel(16, ask_again_and_again) for each in found]
    assert [each.broken for each in replies if each.broken] == []
    for reply in replies:  # the queue may be full
        assert reply.last == "done" or (reply.status in (429, 503) and reply.retry_after)
    assert sum(reply.last == "done" for reply in replies) > len(replies) // 2
