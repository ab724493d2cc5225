"""The native engine beside its peers: `make bench`, or `python -m bench.engine --rounds 3`.

Each round runs every engine once, in a process of its own, on the same random BLOOM-560m; what is
reported is the median of the rounds, and ratios within them. Decoding is held against the read
bandwidth of the same seconds. Results go to bench/results: a table, latest.json, plots.
"""

import argparse
import http.client
import json
import math
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import BATCHES, CONTEXTS, PEERS, PREFILL, STEPS, Native
from model.baked.cache import baked_copy
from model.baked.file import BakedModel
from model.engine.native import default_threads

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PYTHON = HERE.parent / ".venv" / "bench" / "bin" / "python"
SLOW = ("CTranslate2", "transformers")  # run in the first round only, unless all is asked for
RATIO_OF = {  # each of ours, and the peer at equal bits
    "piBLOOM W8": "llama.cpp Q8_0",
    "piBLOOM W4": "llama.cpp Q4_0",
    "piBLOOM W8, AVX2": "llama.cpp Q8_0",
    "piBLOOM W4, AVX2": "llama.cpp Q4_0",
}
Result = dict[str, Any]


def bandwidth(threads: int, program: Path) -> float:
    """Return the read bandwidth in GB/s, as it is now."""
    if not program.exists():
        source = HERE / "bandwidth.c"
        subprocess.run(
            ["cc", "-O3", "-march=native", "-pthread", str(source), "-o", str(program)], check=True
        )
    done = subprocess.run([program, str(threads)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def beside_bandwidth(bits: int, size: int, threads: int, program: Path) -> Result:
    """Decode at the shortest context, each time between two readings of the bandwidth.

    A shared machine's bandwidth changes by a half within minutes, so only neighbours compare.
    `size`: bytes that a token reads.
    """
    peer, prompt = Native(threads, bits), list(range(300, 300 + CONTEXTS[0]))
    peer.run([prompt], STEPS)  # does not count: it maps the file
    seen = []
    for _ in range(10):
        before = bandwidth(threads, program)
        rate = STEPS / min(peer.run([prompt], STEPS)[1] for _ in range(3))
        limit = (before + bandwidth(threads, program)) / 2
        seen.append({"tokens": rate, "bandwidth": limit, "share": rate * size / 1e9 / limit})
    peer.engine.close()
    return median_of(seen)


def run_peer(name: str, threads: int) -> Result | None:
    """Measure one engine; None, and a line that says why, when it cannot run here."""
    done = subprocess.run(
        [PYTHON, "-m", "bench.peers", name, str(threads)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: Result = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def cold_start(model: Path, settings: Mapping[str, str]) -> Result:
    """Time a function from the start of its process to its first token over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PIBLOOM_MODEL": str(model),
        "PIBLOOM_LOG_LEVEL": "ERROR",
        **settings,
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "functions", "generate", "--port", str(port)], env=environment
    )
    try:
        ready = _until_ready(process, port) - started
        body = json.dumps({"prompt": "Hello", "max_new_tokens": 1, "temperature": 0})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("POST", "/", body, {"content-type": "application/json"})
        assert connection.getresponse().status == 200
        first = time.perf_counter() - started
        return {"ready": ready, "first token": first, "memory": _memory_of(process.pid)}
    finally:
        process.terminate()
        process.wait(30)


def _until_ready(process: "subprocess.Popen[bytes]", port: int) -> float:
    while process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return time.perf_counter()
        except OSError:
            pass
        time.sleep(0.005)
    raise RuntimeError(f"the function ended with {process.returncode}")


def _memory_of(parent: int) -> dict[str, int]:
    """Sum a process's and its children's resident bytes, what they share once: all, and private."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    total = {"Pss": 0, "Private": 0}
    for pid in [str(parent), *children]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value, *_ = line.split()
            if name == "Pss:":
                total["Pss"] += int(value) * 1024
            elif name == "Private_Dirty:":
                total["Private"] += int(value) * 1024
    return total


def median_of(rounds: Sequence[Result]) -> Result:
    """Return the median of each figure."""
    return {
        name: statistics.median(found[name] for found in rounds)
        if isinstance(rounds[0][name], float | int)
        else rounds[-1][name]
        for name in rounds[0]
    }


def measure(rounds: int, threads: int, *, every: bool) -> Result:
    """Run all engines in turn, several times."""
    from bench import weights

    folder = weights.checkpoint()
    baked = {bits: baked_copy(folder, bits) for bits in (8, 4)}
    found: dict[str, list[Result]] = {name: [] for name in PEERS}
    starts: dict[str, list[Result]] = {"piBLOOM W8": [], "piBLOOM W4": [], "torch fp32": []}
    shares: dict[str, list[Result]] = {name: [] for name in _OURS}
    read = {name: bytes_read(baked[bits]) for name, bits in _OURS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "bandwidth"
        for round_ in range(rounds):
            for name in PEERS:
                if round_ and name.startswith(SLOW) and not every:
                    continue
                result = run_peer(name, threads)
                if result is not None:
                    found[name].append(result)
                print(f"round {round_ + 1}: {name}", file=sys.stderr)
            for name, bits in _OURS.items():
                shares[name].append(beside_bandwidth(bits, read[name], threads, program))
            functions: dict[str, tuple[Path, dict[str, str]]] = {
                f"piBLOOM W{bits}": (baked[bits], {}) for bits in (8, 4)
            }
            if not round_:
                functions["torch fp32"] = (folder, {"PIBLOOM_ENGINE": "reference"})
            for name, function in functions.items():
                cold_start(*function)  # does not count: it puts the files into the page cache
                starts[name].append(cold_start(*function))
    return {
        "machine": machine(threads),
        "files": {name: baked[bits].stat().st_size for name, bits in _OURS.items()},
        "bytes read a token": read,
        "bandwidth": {name: median_of(each) for name, each in shares.items()},
        "rounds": found,
        "engines": {name: median_of(each) for name, each in found.items() if each},
        "function": {name: median_of(each) for name, each in starts.items() if each},
    }


_OURS = {"piBLOOM W8": 8, "piBLOOM W4": 4}


def bytes_read(path: Path) -> int:
    """Return what a decoded token reads at least: all weights but the embedding's lower plane."""
    model = BakedModel(path)
    return sum(each.nbytes for each in model.tensors if not each.format.startswith("LOW"))


def processor() -> str:
    """Return the processor's name."""
    return next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )


def commit() -> str:
    """Return the commit of the code that is measured."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()


def now() -> str:
    """Return the time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def machine(threads: int) -> dict[str, str]:
    """Describe where this was measured."""
    packages = ("xllamacpp", "ctranslate2", "torch", "transformers")
    code = "import sys; from importlib.metadata import version as v;"
    code += 'print(*(f"{name} {v(name)}" for name in sys.argv[1:]), sep=", ")'
    versions = ""
    if PYTHON.exists():  # the peers are installed
        versions = subprocess.run(
            [PYTHON, "-c", code, *packages], capture_output=True, text=True
        ).stdout.strip()
    return {
        "processor": processor(),
        "threads": str(threads),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit(),
        "packages": versions,
        "when": now(),
    }


def table(results: Result) -> str:
    """Write the results as Markdown."""
    engines = results["engines"]
    columns = [f"decode at {each}" for each in CONTEXTS]
    columns += [f"batch of {each}" for each in BATCHES] + [f"prefill of {PREFILL}"]
    lines = [
        "# The engine beside its peers",
        "",
        "Made by `make bench`: a random BLOOM-560m, tokens a second, medians of"
        f" {max(map(len, results['rounds'].values()))} interleaved rounds, in each of which the"
        " fastest of three runs counts.",
        "",
        *(f"- {name}: {value}" for name, value in results["machine"].items()),
        "",
        "| engine | load, s | " + " | ".join(columns) + " | resident, MB |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for name, found in engines.items():
        row = ["–" if math.isnan(found[column]) else f"{found[column]:.1f}" for column in columns]
        resident = found["memory"]["Rss"] / 1e6
        lines.append(f"| {name} | {found['load']:.2f} | {' | '.join(row)} | {resident:.0f} |")
    lines += ["", "## Ratios", "", "| | against | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, peer in RATIO_OF.items():
        if name in engines and peer in engines:
            # Of each round by itself, in which both ran within minutes of one another.
            pairs = zip(results["rounds"][name], results["rounds"][peer], strict=False)
            ratios = [{each: a[each] / b[each] for each in columns} for a, b in pairs]
            row = [f"{statistics.median(r[each] for r in ratios):.2f}" for each in columns]
            lines.append(f"| {name} | {peer} | {' | '.join(row)} |")
    lines += ["", "## Of the read bandwidth", ""]
    for name, size in results["bytes read a token"].items():
        seen = results["bandwidth"][name]
        lines.append(
            f"- {name}: a token reads {size / 1e6:.0f} MB of weights; decoding at {CONTEXTS[0]}"
            f" tokens gave {seen['tokens']:.1f} a second, {seen['share']:.0%} of what the"
            f" {seen['bandwidth']:.1f} GB/s of the same seconds would allow"
        )
    lines += ["", "## The function, from the start of its process", ""]
    lines += [
        "| | ready, s | first token over HTTP, s | resident, MB | of it private, MB | file, MB |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, found in results["function"].items():
        memory = found["memory"]
        lines.append(
            f"| {name} | {found['ready']:.2f} | {found['first token']:.2f}"
            f" | {memory['Pss'] / 1e6:.0f} | {memory['Private'] / 1e6:.0f}"
            f" | {results['files'].get(name, 0) / 1e6:.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(results: Result) -> None:
    """Draw decoding by context and by batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    engines = results["engines"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6))
    for name, found in engines.items():
        style = (
            {"lw": 2.2, "marker": "o"}
            if name.startswith("piBLOOM")
            else {"lw": 1.2, "ls": "--", "marker": "s"}
        )
        left.plot(CONTEXTS, [found[f"decode at {each}"] for each in CONTEXTS], label=name, **style)
        right.plot(BATCHES, [found[f"batch of {each}"] for each in BATCHES], label=name, **style)
    left.set(title="One stream", xlabel="tokens of context", ylabel="tokens a second")
    right.set(title="Streams at once", xlabel="streams", ylabel="tokens a second, all together")
    right.set_xscale("log", base=2)
    right.set_xticks(BATCHES, [str(each) for each in BATCHES])
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncol=5, frameon=False
    )
    where = results["machine"]
    figure.suptitle(f"BLOOM-560m's shape, {where['threads']} threads of {where['processor']}")
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    for suffix in ("png", "svg"):
        figure.savefig(RESULTS / f"engine.{suffix}", dpi=130)


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--all", action="store_true", help="the slow engines in every round too")
    arguments = parser.parse_args()
    results = measure(arguments.rounds, arguments.threads, every=arguments.all)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "engine.md").write_text(table(results))
    plot(results)
    print(table(results))


if __name__ == "__main__":
    main()
