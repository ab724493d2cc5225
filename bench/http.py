"""The function `generate` under load: `python -m bench.http`, half an hour; or `--quick`, minutes.

Three experiments on loopback, each with the real server, a model and no proxy:

- soak: many streams at once, for minutes; errors, memory, descriptors, and how fair the shares are;
- overload: ten times as many clients as there are places; how soon the surplus hears 429, and what
  that costs the streams that run;
- overhead: the same batch of eight through HTTP and by the bare engine, in turns.

Results go to bench/results: http.md, http.json, and a plot. Clients and server share this machine,
so that what clients cost is the server's loss.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from model.baked.cache import baked_copy
from model.baked.file import BakedModel
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.names import default_model
from model.sampling import DEFAULTS, SamplingParams
from model.serving.sampler import Sampler
from model.text.tokenizer import END, NEVER_DRAWN

RESULTS = Path(__file__).parent / "results"
PROMPT = "Once upon a time there was a small town by the sea, and in that town"
BATCH = 8
GOES_ON = {str(END): -100}  # the bias that keeps a reply from ending before its last token
Figures = dict[str, Any]


@dataclass
class Stream:
    """What one request got."""

    asked: float  # on time.monotonic()'s clock, as all moments here
    status: int = 0
    answered: float = 0.0  # when the status line was there
    chunks: list[float] = field(default_factory=list)  # when each piece of text came
    tokens: int = 0  # as the last event tells; 0 when there was none
    ended: bool = False  # whether it ended as a stream should
    retry_after: float = 0.0


class Server:
    """A server process of its own, for as long as the `with` block lasts."""

    def __init__(self, model: Path, **settings: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        environment = os.environ | {"PIBLOOM_MODEL": str(model), "PIBLOOM_LOG_LEVEL": "ERROR"}
        environment |= {f"PIBLOOM_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "functions", "generate", "--port", str(self.port)]
        self._process = subprocess.Popen(command, env=environment)

    def __enter__(self) -> Self:
        while not self._is_ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    @property
    def memory(self) -> int:
        """Bytes of the worker that are its own and in memory."""
        for line in Path(f"/proc/{self._worker}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell a process's memory")

    @property
    def descriptors(self) -> int:
        """Open files and sockets of the worker."""
        return len(list(Path(f"/proc/{self._worker}/fd").iterdir()))

    @property
    def _worker(self) -> int:
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False


async def ask(port: int, tokens: int, stream: Stream | None = None) -> Stream:
    """Ask for a streamed completion of exactly `tokens` tokens, and read it to its end."""
    found = stream or Stream(time.monotonic())
    body = json.dumps(
        {
            "prompt": PROMPT,
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "logit_bias": GOES_ON,
        }
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        found.status = int((await reader.readline()).split()[1])
        found.answered = time.monotonic()
        while line := await reader.readline():
            _note(found, line)
    finally:
        writer.close()
    return found


def _note(found: Stream, line: bytes) -> None:
    """Read a line of the reply: a header, an event, or the framing of a chunked body."""
    if line.startswith(b"data: [DONE]"):
        found.ended = True
    elif line.startswith(b'data: {"id"'):
        if b'"completion_tokens"' in line:
            found.tokens = json.loads(line[6:])["usage"]["completion_tokens"]
        else:
            found.chunks.append(time.monotonic())
    elif line.lower().startswith(b"retry-after:"):
        found.retry_after = float(line.split(b":")[1])


async def soak(server: Server, *, streams: int, seconds: float, tokens: int = 200) -> Figures:
    """Keep `streams` clients asking for `seconds`; they finish the replies that they have begun."""
    begun = time.monotonic()
    replies: list[list[Stream]] = [[] for _ in range(streams)]
    series: list[tuple[float, int, int]] = []

    async def client(place: int) -> None:
        while time.monotonic() < begun + seconds:
            reply = Stream(time.monotonic())
            replies[place].append(reply)
            # Lengths differ, or all of them would come and go together.
            await ask(
                server.port, tokens // 2 + (place * 37 + len(replies[place]) * 11) % tokens, reply
            )

    async def watch() -> None:
        while True:
            series.append((time.monotonic() - begun, server.memory, server.descriptors))
            await asyncio.sleep(min(1.0, seconds / 20))

    watching = asyncio.create_task(watch())
    done = await asyncio.gather(*map(client, range(streams)), return_exceptions=True)
    watching.cancel()
    rates = [sum(reply.tokens for reply in mine) / (time.monotonic() - begun) for mine in replies]
    every = [reply for mine in replies for reply in mine]
    settled = [each for each in series if min(60.0, seconds / 4) <= each[0] <= seconds]
    early, late = settled[: len(settled) // 4 + 1], settled[-len(settled) // 4 :]
    return {
        "streams": streams,
        "seconds": seconds,
        "replies": len(every),
        "errors": sum(not reply.ended for reply in every)
        + sum(isinstance(each, BaseException) for each in done),
        "tokens a second": sum(rates),
        "slowest share of the mean": min(rates) / statistics.mean(rates),
        "memory grew by": max(m for _, m, _ in late) / max(m for _, m, _ in early) - 1,
        "descriptors grew by": max(d for *_, d in late) - max(d for *_, d in early),
        "rates": rates,
        "series": series,
    }


async def overload(server: Server, *, places: int, seconds: float, tokens: int = 200) -> Figures:
    """Keep every place taken, and let nine times as many clients ask and obey Retry-After."""
    every: list[Stream] = []

    async def client(delay: float, until: float) -> None:
        await asyncio.sleep(delay)
        while time.monotonic() < until:
            every.append(reply := Stream(time.monotonic()))
            await ask(server.port, tokens, reply)
            await asyncio.sleep(reply.retry_after)

    begun = time.monotonic()
    change, end = begun + 2 + seconds, begun + 4 + 2 * seconds
    clients = [client(0, end) for _ in range(places)]
    # Nobody's clients arrive in one instant.
    surplus = 9 * places
    clients += [client(2 + seconds + place / surplus, end) for place in range(surplus)]
    done = await asyncio.gather(*clients, return_exceptions=True)
    chunks = [at for reply in every for at in reply.chunks]
    quiet = sum(begun + 2 <= at < change for at in chunks) / seconds
    pressed = sum(change + 2 <= at < end for at in chunks) / seconds
    refused = [reply for reply in every if reply.status == 429]
    waits = sorted((reply.answered - reply.asked) * 1000 for reply in refused)
    return {
        "places": places,
        "clients": 10 * places,
        "refused": len(refused),
        "errors": sum(not reply.ended and reply.status != 429 for reply in every)
        + sum(isinstance(each, BaseException) for each in done),
        "429 after, median ms": statistics.median(waits),
        "429 after, 99% ms": waits[int(len(waits) * 0.99)],
        "pieces a second alone": quiet,
        "pieces a second overloaded": pressed,
        "rate kept": pressed / quiet,
        "waits": waits,
    }


async def through_http(server: Server, tokens: int) -> float:
    """Return the tokens a second that eight clients together read."""
    found = await asyncio.gather(*(ask(server.port, tokens) for _ in range(BATCH)))
    begun = max(stream.chunks[0] for stream in found)
    ended = max(stream.chunks[-1] for stream in found)
    before = sum(sum(at <= begun for at in stream.chunks) for stream in found)
    read = sum(len(stream.chunks) for stream in found)
    share = (read - before) / read  # of the tokens; not each of them completes a piece of text
    return sum(stream.tokens for stream in found) * share / (ended - begun)


def bare(model: Path, tokens: int, sampling: SamplingParams) -> float:
    """Return the tokens a second of a batch of eight when nothing is between."""
    baked = BakedModel(model)
    engine, ids = NativeEngine(baked), baked.tokenizer().ids(PROMPT)
    try:
        sequences = [engine.new_sequence((), len(ids) + tokens) for _ in range(BATCH)]
        samplers = [Sampler(sampling, ids, NEVER_DRAWN) for _ in range(BATCH)]
        following = [
            sampler.next(logits)
            for sampler, sequence in zip(samplers, sequences, strict=True)
            if (logits := engine.forward([Work(sequence, ids)])[0]) is not None
        ]
        begun = time.perf_counter()
        for _ in range(tokens - 1):
            works = [Work(s, [id_]) for s, id_ in zip(sequences, following, strict=True)]
            following = [
                sampler.next(logits)
                for sampler, logits in zip(samplers, engine.forward(works), strict=True)
                if logits is not None
            ]
        return BATCH * (tokens - 1) / (time.perf_counter() - begun)
    finally:
        engine.close()


def overhead(model: Path, *, rounds: int, tokens: int) -> Figures:
    """Measure both in turns, each round; the figures are medians, the last of the ratios.

    Both draw their tokens in the same way, that of a request that says nothing of it. What drawing
    costs shows beside a bare engine that takes the likeliest token always.
    """
    drawn = replace(DEFAULTS, logit_bias=((END, -100.0),))
    found = []
    for _ in range(rounds):
        likeliest = bare(model, tokens, replace(drawn, temperature=0, repetition_penalty=1))
        alone = bare(model, tokens, drawn)
        with Server(model, max_batch=BATCH) as server:
            asyncio.run(through_http(server, tokens // 4))  # a first time, which does not count
            found.append((likeliest, alone, asyncio.run(through_http(server, tokens))))
    return {
        "batch": BATCH,
        "bare, the likeliest, tokens a second": statistics.median(each for each, _, _ in found),
        "bare, drawn, tokens a second": statistics.median(alone for _, alone, _ in found),
        "through HTTP, tokens a second": statistics.median(served for _, _, served in found),
        "overhead": statistics.median(alone / served - 1 for _, alone, served in found),
    }


_HEAD = """# The function under load

Made by `python -m bench.http` on loopback; clients and server share the machine. Memory grows until
the budget for keys and values (2 GiB here) is used; "memory grew by" is the most of the last
quarter over the most of the first one, after the first minute. "Overhead" is what HTTP adds to the
time of the engine alone, drawing in the same way."""


def table(found: Mapping[str, Figures]) -> str:
    """Write the figures as Markdown, but for those that the plot shows."""
    lines = [_HEAD]
    for name, figures in found.items():
        lines += ["", f"## {name}", "", "| | |", "|---|---|"]
        for what, value in figures.items():
            if isinstance(value, float):
                lines.append(f"| {what} | {value:{',.0f' if value >= 1000 else '.3g'}} |")
            elif not isinstance(value, list):
                lines.append(f"| {what} | {value} |")
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Figures], path: Path) -> None:
    """Draw the soak's memory and shares, and how soon the surplus was refused."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    soaks = {name: each for name, each in found.items() if "series" in each}
    overloads = {name: each for name, each in found.items() if "waits" in each}
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4))
    for name, each in soaks.items():
        moments = [at / 60 for at, *_ in each["series"]]
        left.plot(moments, [memory / 1e6 for _, memory, _ in each["series"]], label=name)
        mean = statistics.mean(each["rates"])
        middle.plot(sorted(rate / mean for rate in each["rates"]), label=name)
    for name, each in overloads.items():
        shares = [place / len(each["waits"]) for place in range(len(each["waits"]))]
        right.plot(each["waits"], shares, label=name)
    left.set(title="The worker's own memory", xlabel="minutes", ylabel="MB")
    middle.set(title="Shares, slowest stream first", xlabel="stream", ylabel="of the mean rate")
    middle.axhline(0.5, color="grey", ls="--", lw=1)
    right.set(title="429 after", xlabel="milliseconds", ylabel="share of the refused")
    for axes in (left, middle, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=130)


def main() -> None:
    """Run all of it, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    quick = parser.parse_args().quick
    from bench import weights

    models = {"demo": default_model(), "560m": weights.checkpoint()}
    found: dict[str, Figures] = {}
    for name, folder in models.items():
        model = baked_copy(folder, 8)
        with Server(model, max_batch=64, kv_memory=2 << 30, deadline=3600) as server:
            minutes = 0.25 if quick else 10.0
            soaking = soak(server, streams=64, seconds=60 * minutes)
            found[f"soak, {name}"] = asyncio.run(soaking)
        with Server(model, max_batch=BATCH, max_queue=BATCH, deadline=3600) as server:
            pressing = overload(server, places=2 * BATCH, seconds=10 if quick else 60)
            found[f"overload, {name}"] = asyncio.run(pressing)
        found[f"overhead, {name}"] = overhead(
            model, rounds=1 if quick else 5, tokens=64 if name == "560m" else 400
        )
        print(table(found))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "http.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "http.md").write_text(table(found))
    plot(found, RESULTS / "http")


if __name__ == "__main__":
    main()
