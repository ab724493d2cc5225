"""What a wake from zero takes on a cluster, phase by phase, and what a burst makes of it.

    export KUBECONFIG=…
    python -m bench.cluster --hello IMAGE [--also SERVICE …]

In each round every service is woken once, one after the other, when nothing is left of any of
them: Knative's own Go `helloworld`, which is what the cluster itself takes, then `tokenize`, then
`generate` and others like it. What counts is how much later than helloworld's reply ours come. Then
50 requests are sent at once to `generate` at zero. Results go to bench/results/cluster.*.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, Stream, Watch, in_parallel, until

RESULTS = Path(__file__).parent / "results"
HELLO = "hello"
BODY = {"prompt": "Once upon a time", "max_new_tokens": 8, "seed": 1}
BURST = 50
Pod = dict[str, Any]
Wake = dict[str, float]  # seconds from the request to each phase
PHASES = ("pod scheduled", "container started", "ready", "first reply")


def condition(kind: str) -> Callable[[Pod], bool]:
    """Return whether a pod has a condition."""

    def holds(pod: Pod) -> bool:
        found = pod["status"].get("conditions", [])
        return any(each["type"] == kind and each["status"] == "True" for each in found)

    return holds


def started(pod: Pod) -> bool:
    """Whether its own container runs; queue-proxy is Knative's."""
    return any(
        each["name"] != "queue-proxy" and "running" in each["state"]
        for each in pod["status"].get("containerStatuses", [])
    )


def wake(cluster: Cluster, service: str) -> Wake:
    """Ask a service that is at zero; return when each phase was over."""
    with cluster.watching(service) as watch, cluster.client(service) as http:
        time.sleep(0.5)  # until the watch is established
        made: dict[str, float] = {}
        if service.startswith("generate"):
            reply = cluster.stream(service, BODY)
            sent, first, made = reply.sent, reply.tokens[0], reply.done["timings"]
        else:
            sent = time.time()
            answer = http.get("/") if service == HELLO else http.post("/", json={"text": "Hello"})
            answer.raise_for_status()
            first = time.time()
        until(lambda: watch.first(condition("Ready")), 30, f"{service}: no pod became ready")
        seen = {
            "pod scheduled": watch.first(condition("PodScheduled")),
            "container started": watch.first(started),
            "ready": watch.first(condition("Ready")),
            "first reply": first,
        }
    found = {name: at - sent for name, at in seen.items() if at is not None}
    if made:
        found["of that, prompt"] = made["prefill_ms"] / 1000
    return found


def measure(cluster: Cluster, services: Sequence[str], rounds: int) -> dict[str, list[Wake]]:
    """Wake every service, once in each round."""
    found: dict[str, list[Wake]] = {service: [] for service in services}
    for round_ in range(rounds):
        for service in services:
            cluster.wait_for_zero(service)
        for service in services:
            found[service].append(wake(cluster, service))
        line = ", ".join(f"{name} {seen[-1]['first reply']:.2f}" for name, seen in found.items())
        print(f"round {round_ + 1}: {line}", file=sys.stderr)
    return found


def burst(cluster: Cluster) -> dict[str, Any]:
    """Send many requests at once to a function at zero."""
    cluster.wait_for_zero("generate")
    with cluster.watching("generate") as watch:
        time.sleep(0.5)
        body = {**BODY, "max_new_tokens": 64}
        replies = in_parallel(
            BURST, lambda index: cluster.stream("generate", body | {"seed": index})
        )
        cluster.wait_for_zero("generate")
    sent = min(reply.sent for reply in replies)
    return {
        "sent": sorted(reply.sent - sent for reply in replies),
        "pods": steps(watch, sent),
        "replies": [outcome(reply, sent) for reply in replies],
    }


def outcome(reply: Stream, sent: float) -> dict[str, Any]:
    """Say what became of a request."""
    end = reply.events[-1][0] if reply.events else reply.headers_at
    return {
        "status": reply.status,
        "last": reply.last,
        "retry_after": reply.retry_after,
        "first": reply.tokens[0] - sent if reply.tokens else None,
        "end": end - sent,
    }


def steps(watch: Watch, sent: float) -> list[tuple[float, int, int]]:
    """Return (seconds, pods that exist, pods that are ready), at each change."""
    pods: dict[str, Pod] = {}
    found = []
    for at, event, pod in watch.seen:
        name = pod["metadata"]["name"]
        if event == "DELETED":
            pods.pop(name, None)
        else:
            pods[name] = pod
        alive = [each for each in pods.values() if "deletionTimestamp" not in each["metadata"]]
        found.append((at - sent, len(alive), sum(map(condition("Ready"), alive))))
    return found


def medians(wakes: Sequence[Wake]) -> Wake:
    """Return the median of each phase."""
    return {name: statistics.median(each[name] for each in wakes) for name in wakes[0]}


def table(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    wakes = results["wakes"]
    count = len(wakes[HELLO])
    lines = [
        "# From zero, on a cluster",
        "",
        f"Made by `python -m bench.cluster`: {count} rounds, in each of which every service was"
        " woken once; seconds from the request, medians (and the slowest). Phases are as the API"
        " server reports them.",
        "",
        *(f"- {name}: {value}" for name, value in results["machine"].items()),
        "",
        "| service | " + " | ".join(PHASES) + " | after helloworld's reply |",
        "|---" * (len(PHASES) + 2) + "|",
    ]
    for name, seen in wakes.items():
        row = [
            f"{statistics.median(each[phase] for each in seen):.2f}"
            f" ({max(each[phase] for each in seen):.2f})"
            for phase in PHASES
        ]
        later = statistics.median(
            mine["first reply"] - theirs["first reply"]
            for mine, theirs in zip(seen, wakes[HELLO], strict=True)
        )
        lines.append(f"| {name} | {' | '.join(row)} | {later:+.2f} |")
    replies = results["burst"]["replies"]
    whole = [each for each in replies if each["last"] == "done"]
    refused = [each for each in replies if each["status"] in (429, 503) and each["retry_after"]]
    other = len(replies) - len(whole) - len(refused)
    lines += [
        "",
        f"## {len(replies)} requests within {results['burst']['sent'][-1]:.2f} s, at zero",
        "",
        f"{len(whole)} replies to their end, {len(refused)} refused with Retry-After, {other} lost;"
        f" first tokens after {min((each['first'] for each in whole), default=0):.1f} to"
        f" {max((each['first'] for each in whole), default=0):.1f} s, all ended after"
        f" {max(each['end'] for each in replies):.1f} s;"
        f" {max(pods for _, pods, _ in results['burst']['pods'])} pods.",
    ]
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any]) -> None:
    """Draw the phases of each service, and a burst's pods and replies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4))
    names = list(results["wakes"])
    for row, name in enumerate(names):
        before = 0.0
        seen = medians(results["wakes"][name])
        for index, phase in enumerate(PHASES):
            width = max(0.0, seen[phase] - before)
            left.barh(row, width, left=before, color=f"C{index}", label="" if row else phase)
            before = max(before, seen[phase])
        for each in results["wakes"][name]:
            left.plot(each["first reply"], row, "k|", ms=9, alpha=0.5)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(
        title="Woken from zero", xlabel="seconds from the request (median; | each first reply)"
    )
    left.legend(fontsize=8)
    found = results["burst"]
    times = [at for at, _, _ in found["pods"]]
    right.step(times, [pods for _, pods, _ in found["pods"]], where="post", label="pods")
    right.step(times, [ready for _, _, ready in found["pods"]], where="post", label="ready pods")
    right.set(title=f"{BURST} requests at once", xlabel="seconds from the requests", ylabel="pods")
    right.set_ylim(bottom=0)
    replies = right.twinx()
    for key, label in (("first", "first tokens"), ("end", "ended")):
        at = sorted(each[key] for each in found["replies"] if each[key] is not None)
        replies.step(
            at,
            range(1, len(at) + 1),
            "--",
            where="post",
            label=label,
            color="gray",
            alpha=0.5 + 0.4 * (key == "end"),
        )
    replies.set(ylabel="requests")
    right.legend(loc="center right", fontsize=8)
    replies.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(RESULTS / f"cluster.{suffix}", dpi=130)


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hello", required=True, help="image of Knative's test helloworld")
    parser.add_argument("--also", nargs="*", default=[], help="further services like generate")
    arguments = parser.parse_args()
    cluster = Cluster()
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": HELLO, "namespace": cluster.namespace},
        "spec": {"template": {"spec": {"containers": [{"image": arguments.hello}]}}},
    }
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(service))
    try:
        services = [HELLO, "tokenize", "generate", *arguments.also]
        for name in services:
            cluster.wait_ready(name)
        results = {
            "machine": {
                "kubernetes": cluster.kubectl("version").strip().splitlines()[-1].split()[-1],
                "cores": str(os.cpu_count()),
                "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            },
            "wakes": measure(cluster, services, arguments.rounds),
            "burst": burst(cluster),
        }
    finally:
        cluster.kubectl("delete", "ksvc", HELLO, "--ignore-not-found")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cluster.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "cluster.md").write_text(table(results))
    plot(results)
    print(table(results))


if __name__ == "__main__":
    main()
