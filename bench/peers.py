"""One engine in one process: `python -m bench.peers NAME THREADS` prints what it measured as JSON.

Prompts are random tokens; everything is greedy. Times are in seconds, memory in bytes.
"""

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

CONTEXTS = (32, 512, 2000)
PREFILL = 512
BATCHES = (1, 2, 4, 8, 16)
STEPS = 24  # tokens decoded for each figure; slow engines do fewer
SLOW_STEPS = 6


class Peer(Protocol):
    """An engine that is loaded."""

    steps: int

    def run(self, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
        """Decode `new` tokens after each prompt, all at once; seconds of prefill and of decode."""


class Native:
    """piBLOOM's own engine."""

    steps = STEPS

    def __init__(
        self, threads: int, bits: int, isa: str | None = None, path: Path | None = None
    ) -> None:
        from bench import weights
        from model.baked.cache import baked_copy
        from model.baked.file import BakedModel
        from model.engine.native import NativeEngine

        model = BakedModel(path or baked_copy(weights.checkpoint(), bits))
        self.engine = NativeEngine(model, threads=threads, isa=isa, kv_bytes=1 << 30, cache_bytes=0)

    def run(self, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
        """Decode `new` tokens after each prompt."""
        from model.engine.contract import Work

        engine = self.engine
        sequences = [engine.new_sequence() for _ in prompts]
        started, tokens = time.perf_counter(), []
        for sequence, prompt in zip(sequences, prompts, strict=True):
            for at in range(0, len(prompt), 64):  # in the scheduler's chunks
                (logits,) = engine.forward([Work(sequence, prompt[at : at + 64])])
            assert logits is not None
            tokens.append(logits.top(1)[0][0])
        prefilled = time.perf_counter()
        for _ in range(new):
            works = [Work(each, [token]) for each, token in zip(sequences, tokens, strict=True)]
            tokens = [each.top(1)[0][0] for each in engine.forward(works) if each is not None]
        ended = time.perf_counter()
        for sequence in sequences:
            engine.release(sequence)
        return prefilled - started, ended - prefilled


class Llama:
    """llama.cpp, as PyPI has it (xllamacpp)."""

    steps = STEPS

    def __init__(self, threads: int, kind: str) -> None:
        import xllamacpp

        from bench import weights

        params = xllamacpp.CommonParams()
        params.model.path = str(weights.gguf(kind))
        params.n_ctx = CONTEXTS[-1] + 4 * STEPS
        params.n_parallel = BATCHES[-1]
        params.kv_unified = True  # or else each of its places would hold a whole context
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_prompt = False
        params.cache_ram_mib = 0
        params.warmup = False
        params.verbosity = -1
        self.server = xllamacpp.Server(params)

    def run(self, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
        """Decode `new` tokens after each prompt; the seconds are those that the server tells."""
        found: list[dict[str, Any]] = []

        def ask(prompt: list[int]) -> None:
            body = {
                "prompt": prompt,
                "n_predict": new + 1,
                "temperature": 0,
                "ignore_eos": True,
                "cache_prompt": False,
                "samplers": ["top_k"],
                "top_k": 1,
            }
            found.append(self.server.handle_completions(body))

        started = time.perf_counter()
        threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - started
        timings = [each["timings"] for each in found]
        if len(prompts) == 1:
            only = timings[0]
            per_token = only["predicted_ms"] / max(1, only["predicted_n"] - 1)
            return only["prompt_ms"] / 1000, per_token * new / 1000
        prefill = min(each["prompt_ms"] for each in timings) / 1000
        return prefill, wall - prefill


class Transformers:
    """transformers, in float32 or bfloat16."""

    steps = SLOW_STEPS

    def __init__(self, threads: int, dtype: str) -> None:
        import torch
        from transformers import BloomForCausalLM

        from bench import weights

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = BloomForCausalLM.from_pretrained(
            weights.checkpoint(), dtype=getattr(torch, dtype)
        ).eval()

    def run(self, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
        """Decode `new` tokens after each prompt."""
        torch = self.torch
        with torch.inference_mode():
            started = time.perf_counter()
            out = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            prefilled = time.perf_counter()
            for _ in range(new):
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1].argmax(-1, keepdim=True)
            return prefilled - started, time.perf_counter() - prefilled


class CTranslate2:
    """CTranslate2, in int8."""

    steps = 2 * SLOW_STEPS

    def __init__(self, threads: int) -> None:
        import ctranslate2

        from bench import weights

        folder = weights.ctranslate2()
        self.generator = ctranslate2.Generator(
            str(folder), device="cpu", intra_threads=threads, compute_type="int8"
        )
        entries = json.loads((weights.checkpoint() / "tokenizer.json").read_text())
        self.names = list(entries["model"]["vocab"])

    def run(self, prompts: Sequence[list[int]], new: int) -> tuple[float, float]:
        """Decode after each prompt; prefill is what one token costs, which is then taken off."""
        texts = [[self.names[id_] for id_ in prompt] for prompt in prompts]
        seconds = []
        for count in (1, new + 1):
            started = time.perf_counter()
            self.generator.generate_batch(
                texts,
                max_length=count,
                min_length=count,
                sampling_topk=1,
                include_prompt_in_result=False,
                cache_static_prompt=False,
            )
            seconds.append(time.perf_counter() - started)
        decode = seconds[1] - seconds[0]  # a difference that noise may turn around
        return seconds[0], decode if decode > 0 else math.nan


PEERS: dict[str, Callable[[int], Peer]] = {
    "piBLOOM W8": lambda threads: Native(threads, 8),
    "piBLOOM W4": lambda threads: Native(threads, 4),
    "piBLOOM W8, AVX2": lambda threads: Native(threads, 8, "avx2"),
    "piBLOOM W4, AVX2": lambda threads: Native(threads, 4, "avx2"),
    "llama.cpp Q8_0": lambda threads: Llama(threads, "Q8_0"),
    "llama.cpp Q4_0": lambda threads: Llama(threads, "Q4_0"),
    "CTranslate2 int8": CTranslate2,
    "transformers fp32": lambda threads: Transformers(threads, "float32"),
    "transformers bf16": lambda threads: Transformers(threads, "bfloat16"),
}


def memory() -> dict[str, int]:
    """Return this process's resident bytes, its own and those that others may share."""
    found = dict.fromkeys(("Rss", "Private_Clean", "Private_Dirty", "Shared_Clean"), 0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        if name.rstrip(":") in found:
            found[name.rstrip(":")] = int(value) * 1024
    return found


def measure(name: str, threads: int) -> dict[str, Any]:
    """Load an engine and take every figure once."""
    chance = random.Random(0)

    def prompt(length: int) -> list[int]:
        return [chance.randrange(300, 250_000) for _ in range(length)]

    started = time.perf_counter()
    peer = PEERS[name](threads)
    loaded = time.perf_counter() - started
    peer.run([prompt(4)], 1)
    first = time.perf_counter() - started
    peer.run([prompt(4)], 2)
    found: dict[str, Any] = {"load": loaded, "load_and_first_tokens": first}
    found["memory"] = memory()
    steps = peer.steps

    def best(prompts: Sequence[list[int]]) -> tuple[float, float]:
        """The least disturbed of a few runs, for every engine that is fast enough for that."""
        runs = [peer.run(prompts, steps) for _ in range(3 if steps == STEPS else 1)]
        prefills, decodes = zip(*runs, strict=True)
        return min(prefills), min(decodes)

    for context in CONTEXTS:
        prefill, decode = best([prompt(context)])
        found[f"decode at {context}"] = steps / decode
        if context == PREFILL:
            found[f"prefill of {PREFILL}"] = PREFILL / prefill
    for batch in BATCHES:
        _, decode = best([prompt(8) for _ in range(batch)])
        found[f"batch of {batch}"] = batch * steps / decode
    found["memory at the end"] = memory()
    return found


if __name__ == "__main__":
    json.dump(measure(sys.argv[1], int(sys.argv[2])), sys.stdout)
