"""A Kubernetes cluster with Knative, as the end-to-end tests and the measurements see it.

Everything goes through `kubectl`, as KUBECONFIG says, and through Knative's ingress: the address in
INGRESS, or the node port of Kourier on this machine.
"""

import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

NAMESPACE = "pibloom"
DEPLOYMENT = Path(__file__).parents[2] / "build" / "deploy"
SERVICE_LABEL = "serving.knative.dev/service"
REVISION_LABEL = "serving.knative.dev/revision"

T = TypeVar("T")


class Unavailable(Exception):
    """There is no cluster to test; the message says why."""


@dataclass
class Stream:
    """A streamed reply: its events, and when each arrived (seconds since the epoch)."""

    sent: float
    status: int = 0
    retry_after: str | None = None
    headers_at: float = 0.0
    events: list[tuple[float, str, Any]] = field(default_factory=list)
    broken: str = ""  # how the connection ended, where it should not have

    @property
    def last(self) -> str:
        """The name of the last event; empty when there was none."""
        return self.events[-1][1] if self.events else ""

    @property
    def tokens(self) -> list[float]:
        """When each token arrived."""
        return [at for at, name, _ in self.events if name == "token"]

    @property
    def done(self) -> dict[str, Any]:
        """What `done` said; an assertion when the reply did not end so."""
        assert self.last == "done", f"the reply ended with {self.events[-1:]} {self.broken}"
        said: dict[str, Any] = self.events[-1][2]
        return said


class Cluster:
    """The services of one namespace."""

    def __init__(self, namespace: str = NAMESPACE) -> None:
        """Find the cluster and its ingress; `Unavailable` when one is missing."""
        self.namespace = namespace
        self._hosts: dict[str, str] = {}
        self._tls = ssl.create_default_context()  # takes longer to make than a request to send
        if "KUBECONFIG" not in os.environ:
            raise Unavailable("KUBECONFIG names no cluster")
        if shutil.which("kubectl") is None:
            raise Unavailable("kubectl is not installed")
        try:
            self.kubectl("get", "--raw", "/readyz")
            self.ingress = os.environ.get("INGRESS") or self._kourier()
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"no cluster answers: {error.stderr.strip()[-200:]}") from None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace and return what it prints."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        return subprocess.run(
            command, input=stdin, check=True, capture_output=True, text=True, timeout=660
        ).stdout

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list of objects, as JSON."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "--output", "json"))
        return found

    def _kourier(self) -> str:
        service = json.loads(
            self.kubectl("get", "service", "kourier", "-n", "kourier-system", "-o", "json")
        )
        for port in service["spec"]["ports"]:
            if port["port"] == 80 and "nodePort" in port:
                return f"http://127.0.0.1:{port['nodePort']}"
        raise Unavailable("Kourier has no node port here; give the ingress's address in INGRESS")

    def host(self, service: str) -> str:
        """Return the host name that the ingress knows a service by; asked for once."""
        if service not in self._hosts:
            url: str = self.get("ksvc", service)["status"]["url"]
            self._hosts[service] = url.partition("://")[2]
        return self._hosts[service]

    def client(self, service: str, timeout: float = 300.0) -> httpx.Client:
        """Return a client that talks to a service through the ingress."""
        return httpx.Client(
            base_url=self.ingress,
            headers={"Host": self.host(service)},
            timeout=timeout,
            trust_env=False,
            verify=self._tls,
        )

    def pods(self, service: str, *, ending: bool = True) -> list[dict[str, Any]]:
        """Return a service's pods; without those that are being deleted, if `ending` is False."""
        found = self.get("pods", "--selector", f"{SERVICE_LABEL}={service}")["items"]
        return [pod for pod in found if ending or "deletionTimestamp" not in pod["metadata"]]

    def run_in(self, pod: dict[str, Any], script: str) -> str:
        """Run Python in a pod's own container, whose name kn drops, so it is looked up."""
        names = [container["name"] for container in pod["spec"]["containers"]]
        own = next(name for name in names if name != "queue-proxy")
        pod_name = pod["metadata"]["name"]
        return self.kubectl("exec", pod_name, "--container", own, "--", "python3", "-c", script)

    def ready_revision(self, service: str) -> str:
        """Return the name of the newest revision that is ready."""
        name: str = self.get("ksvc", service)["status"]["latestReadyRevisionName"]
        return name

    def wait_ready(self, service: str, seconds: int = 300) -> None:
        """Wait until a service's newest revision takes its traffic."""
        self.kubectl("wait", "--for=condition=Ready", f"--timeout={seconds}s", f"ksvc/{service}")

    def wait_for_zero(self, service: str, seconds: float = 240) -> None:
        """Wait until a service has no pod left, not even one that is ending."""
        until(lambda: not self.pods(service), seconds, f"{service} still has pods")

    def stream(self, service: str, body: dict[str, Any], path: str = "/") -> Stream:
        """Ask for a streamed reply, and note when each event arrives."""
        with self.client(service) as http:
            reply = Stream(time.time())
            try:
                with http.stream("POST", path, json={**body, "stream": True}) as response:
                    reply.headers_at, reply.status = time.time(), response.status_code
                    reply.retry_after = response.headers.get("retry-after")
                    name = ""
                    for line in response.iter_lines():
                        if line.startswith("event: "):
                            name = line.removeprefix("event: ")
                        elif line.startswith("data: "):
                            data = json.loads(line.removeprefix("data: "))
                            reply.events.append((time.time(), name, data))
            except httpx.HTTPError as error:
                reply.broken = f"{type(error).__name__}: {error}"
        return reply

    def replace_environment(self, service: str, **values: str) -> None:
        """Roll out a new revision, with environment variables set anew."""
        spec = self.get("ksvc", service)["spec"]
        container = spec["template"]["spec"]["containers"][0]
        environment = {item["name"]: item for item in container.get("env", [])}
        for name, value in values.items():
            environment[name] = {"name": name, "value": value}
        container["env"] = list(environment.values())
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        self.kubectl("patch", "ksvc", service, "--type", "merge", "--patch", json.dumps(patch))

    def annotate(self, service: str, name: str, value: str | None) -> None:
        """Roll out a new revision, with an annotation set anew, or without it."""
        patch = {"spec": {"template": {"metadata": {"annotations": {name: value}}}}}
        self.kubectl("patch", "ksvc", service, "--type", "merge", "--patch", json.dumps(patch))

    @contextmanager
    def watching(self, service: str) -> Iterator["Watch"]:
        """Note when a service's pods change, as the API server tells it."""
        watch = Watch(self, service)
        try:
            yield watch
        finally:
            watch.close()


class Watch:
    """What became of pods, and when it was heard of: (seconds since the epoch, event, pod)."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.seen: list[tuple[float, str, dict[str, Any]]] = []
        path = f"/api/v1/namespaces/{cluster.namespace}/pods?watch=true&labelSelector="
        self._process = subprocess.Popen(
            ["kubectl", "get", "--raw", path + quote(f"{SERVICE_LABEL}={service}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # an event a line
            event = json.loads(line)
            self.seen.append((time.time(), event["type"], event["object"]))

    def first(self, holds: Callable[[dict[str, Any]], bool]) -> float | None:
        """Return when a pod was first heard of for which `holds` is true."""
        return next((at for at, _, pod in self.seen if holds(pod)), None)

    def close(self) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait()
        self._thread.join(timeout=5)


def until(check: Callable[[], T], seconds: float, otherwise: str) -> T:
    """Wait until `check` returns something true, and return it."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.25)
    return found


def in_parallel(calls: int, call: Callable[[int], T]) -> list[T]:
    """Call a function with 0, 1, … at once, and return what came back; what one raised, raises."""
    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(call, range(calls)))


def moment(text: str) -> float:
    """Return a time stamp of Kubernetes as seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
