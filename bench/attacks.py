"""Attacks on the two functions, and what they cost: `python -m bench.attacks`, ten minutes.

Each runs against a server of its own on loopback, with a bounded number of requests. What is
measured: the server's peak and resting memory, how long it took, how many of the probes sent
meanwhile were answered within a second, and, for `generate`, how many tokens a second a stream
kept.

`--tree PATH --column before` measures another checkout of the code, for the same table. Results go
to bench/results: attacks.md and attacks.json.
"""

import argparse
import contextlib
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).parents[1]
MB = 1 << 20
FILES = 256  # that a server may open, where connections are the attack
PROBE_SECONDS = 1.0  # within which a probe must be answered, as Kubernetes has it by default
KIND = {"Content-Type": "application/json"}


class Target:
    """A server that is attacked, for as long as the `with` block lasts."""

    def __init__(self, tree: Path, name: str, *, files: int = 0) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        # Its own demo model, which is the default.
        environment = os.environ | {"PYTHONPATH": str(tree), "PIBLOOM_LOG_LEVEL": "ERROR"}

        def limit() -> None:
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self._process = subprocess.Popen(
            [sys.executable, "-m", "functions", name, "--port", str(self.port)],
            cwd=tree,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=limit,
        )

    def __enter__(self) -> Self:
        while self.ask("GET", "/readyz", seconds=60) != 200:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            time.sleep(0.05)
        self.worker = self._worker()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(60)

    def ask(self, method: str, path: str, body: bytes = b"", seconds: float = 120) -> int:
        """Ask, read the whole reply, and return its status; 0 without one."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
            connection.request(method, path, body or None, KIND if body else {})
            reply = connection.getresponse()
            while reply.read(MB):
                pass
            connection.close()
            return reply.status
        return 0

    @property
    def survived(self) -> bool:
        """Whether its worker is the one that it was."""
        with contextlib.suppress(OSError, IndexError):
            return self._process.poll() is None and self._worker() == self.worker
        return False

    def memory(self, field: str) -> int:
        """Bytes of the worker: VmRSS now, VmHWM at most; 0 when it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
        return 0

    def _worker(self) -> int:
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@dataclass
class Watch:
    """Probes a server, and counts the tokens of a stream, while it is attacked."""

    target: Target
    streams: bool
    probes: int = 0
    answered: int = 0
    tokens: int = 0
    broken: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        works = [self._probe, *[self._stream] * self.streams]
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _probe(self) -> None:
        while not self._over.wait(0.1):
            self.probes += 1
            self.answered += self.target.ask("GET", "/healthz", seconds=PROBE_SECONDS) == 200

    def _stream(self) -> None:
        asked = {"prompt": "Once upon a time", "max_tokens": 1500, "stream": True}
        asked["logit_bias"] = {"2": -100}  # so that it does not end by itself
        while not self._over.is_set():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=30)
                connection.request("POST", "/v1/completions", json.dumps(asked), KIND)
                reply = connection.getresponse()
                while (line := reply.readline()) and not self._over.is_set():
                    self.tokens += line.startswith(b"data: {")
                connection.close()
            except (OSError, http.client.HTTPException):
                self.broken += 1
                self._over.wait(0.2)


def at_once(count: int, work: Callable[[], object]) -> None:
    """Do the same in many threads, and wait for all."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def connections(target: Target, count: int, sent: bytes = b"") -> Iterator[None]:
    """Hold connections that send only this."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", target.port), 2)
                stack.enter_context(client)
                client.sendall(sent)
        yield


def post(path: str, body: bytes, count: int) -> Callable[[Target], None]:
    """Send the same body many times at once."""
    return lambda target: at_once(count, lambda: target.ask("POST", path, body))


def silent(target: Target) -> None:
    """Open more connections than files may be open, and say nothing."""
    with connections(target, FILES + 100):
        time.sleep(5)


def idle(target: Target) -> None:
    """Ask once on more connections than files may be open, and keep them."""
    with connections(target, FILES + 100, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        time.sleep(5)


def never_closed(target: Target) -> None:
    """Ask for an end of connections, and then never end them."""
    with connections(target, 200, b"GET /healthz HTTP/1.0\r\n\r\n"):
        time.sleep(2)


def readers_who_stop(target: Target) -> None:
    """Ask for long answers and read none."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(CONTROLS)
    with connections(target, 30, head + length + CONTROLS):
        time.sleep(5)


CONTROLS = b'{"text":"%s"}' % (b"\x7f" * (MB - 20))
WORD = b'{"text":"%s"}' % (b"ab" * (MB // 2 - 20))
IDS = b'{"ids":[%s5]}' % (b"5," * (MB // 2 - 20))
PROMPTS = json.dumps({"prompt": ["a b" * 5000] * 64, "n": 16, "max_tokens": 1}).encode()
LISTS = b'{"prompt":[%s[]]}' % (b"[]," * (MB // 3 - 20))
MANY = json.dumps({"prompt": ["a b " * 400] * 64, "max_tokens": 1}).encode()

# What it is, which function, the attack, and whether files are few.
ATTACKS: list[tuple[str, str, Callable[[Target], None], bool]] = [
    ("a text of 1 MB of control characters", "tokenize", post("/", CONTROLS, 1), False),
    ("8 such at once", "tokenize", post("/", CONTROLS, 8), False),
    ("8 texts of one word of 1 MB", "tokenize", post("/", WORD, 8), False),
    ("500,000 ids, 4 at once", "tokenize", post("/detokenize", IDS, 4), False),
    ("30 readers of long answers who stop", "tokenize", readers_who_stop, False),
    (
        "96 bodies of 1 MB, 1,024 replies each",
        "generate",
        post("/v1/completions", PROMPTS, 96),
        False,
    ),
    ("96 bodies of 1 MB, lists in lists", "generate", post("/v1/completions", LISTS, 96), False),
    ("32 requests of 64 prompts", "generate", post("/v1/completions", MANY, 32), False),
    ("silent connections beyond all files", "generate", silent, True),
    ("idle connections beyond all files", "generate", idle, True),
    ("200 connections that are never closed", "generate", never_closed, False),
]


def measure(
    tree: Path, function: str, attack: Callable[[Target], None], few: bool
) -> dict[str, Any]:
    """Attack once, and tell what it cost."""
    with Target(tree, function, files=FILES if few else 0) as target:
        before = target.memory("VmRSS")
        with Watch(target, streams=function == "generate") as watch:
            time.sleep(3)  # of peace, for the stream's own pace
            peace, began = watch.tokens / 3, time.monotonic()
            counted = watch.tokens
            attack(target)
            seconds = time.monotonic() - began
            kept = (watch.tokens - counted) / seconds
        time.sleep(3)
        return {
            "before_mb": round(before / MB),
            "peak_mb": round(target.memory("VmHWM") / MB),
            "resting_mb": round(target.memory("VmRSS") / MB),
            "seconds": round(seconds, 1),
            "probes": f"{watch.answered}/{watch.probes}",
            "tokens_per_second": f"{kept:.0f} of {peace:.0f}" if watch.streams else "",
            "survived": target.survived,
        }


def soak(tree: Path, seconds: float) -> dict[str, Any]:
    """Repeat the attack of 96 large bodies for long, with a pause between two."""
    with Target(tree, "generate") as target:
        before, peaks, began = target.memory("VmRSS"), [], time.monotonic()
        while time.monotonic() - began < seconds:
            at_once(96, lambda: target.ask("POST", "/v1/completions", PROMPTS))
            time.sleep(10)
            peaks.append(target.memory("VmRSS"))
        return {
            "before_mb": round(before / MB),
            "peak_mb": round(target.memory("VmHWM") / MB),
            "resting_mb": round(target.memory("VmRSS") / MB),
            "rounds": len(peaks),
            "minutes": round((time.monotonic() - began) / 60, 1),
            "survived": target.survived,
        }


INTRODUCTION = f"""# Attacks, and what they cost

Made by `python -m bench.attacks`; what stands first in each cell by `--tree` on the code as it was
before it was mended. Loopback, two shared cores, the demo model. Memory of the worker in MB: at its
peak, and three seconds after the attack. Probes: of `/healthz`, answered in {PROBE_SECONDS:g} s.
Tokens a second: of one stream, in the attack and in the three seconds before it."""


def table(found: dict[str, dict[str, Any]]) -> str:
    """Write the results as Markdown."""

    def cell(column: str, name: str, key: str) -> str:
        reported = found.get(column, {}).get(name)
        if reported is not None and key.endswith("_mb") and not reported["survived"]:
            return "(ended)"
        return "" if reported is None else str(reported.get(key, ""))

    lines = [
        *INTRODUCTION.splitlines(),
        "",
        "| attack | on | peak | resting | seconds | probes | tokens a second | worker lived |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = ("peak_mb", "resting_mb", "seconds", "probes", "tokens_per_second", "survived")
    for name, function, _, _ in ATTACKS:
        cells = [f"{cell('before', name, key)} → {cell('after', name, key)}" for key in keys]
        cells = ["" if each == " → " else each for each in cells]
        cells[-1] = cells[-1].replace("True", "yes").replace("False", "no")
        lines.append(f"| {name} | `{function}` | {' | '.join(cells)} |")
    if long := found.get("after", {}).get("soak"):
        lines += [
            "",
            f"96 bodies of 1 MB, 1,024 replies each, {long['rounds']} times in {long['minutes']}"
            f" minutes: {long['before_mb']} MB before, {long['peak_mb']} at most,"
            f" {long['resting_mb']} at rest.",
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the attacks, and renew the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tree", type=Path, default=HERE, help="the checkout that is attacked")
    parser.add_argument("--column", choices=("before", "after"), default="after")
    parser.add_argument("--soak", type=float, default=0, help="seconds of the long attack alone")
    parser.add_argument("--only", default="", help="a part of an attack's name")
    options = parser.parse_args()
    file = RESULTS / "attacks.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    column = found.setdefault(options.column, {})

    def save() -> None:
        file.write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "attacks.md").write_text(table(found))

    if options.soak:
        column["soak"] = soak(options.tree, options.soak)
        print(column["soak"], flush=True)
        return save()
    for name, function, attack, few in ATTACKS:
        if options.only in name:
            column[name] = measure(options.tree, function, attack, few)
            print(name, column[name], flush=True)
            save()


if __name__ == "__main__":
    main()
