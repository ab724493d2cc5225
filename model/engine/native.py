"""The native engine: C on a baked model, called through ctypes. It is what the Pis run.

It needs neither torch, transformers, tokenizers nor numpy.
"""

import ctypes
import math
import os
import threading
from array import array
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from model.baked.file import BakedModel
from model.engine.contract import Logits, Work
from model.engine.pages import PagedSequence, PagePool
from model.errors import ModelError
from model.native import check_struct, library

MAX_TOKENS = 128  # of one call of the C; a step of more tokens is split into several
MAX_THREADS = 256
SLOTS = 64  # sequences whose logits are kept at the same time


class _Work(ctypes.Structure):
    """`struct bloom_work`."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("pages", ctypes.c_void_p),
        ("slot", ctypes.c_int32),
        ("places", ctypes.c_uint32),
    )


class NativeLogits:
    """The logits after one token, which the engine keeps until its next step."""

    def __init__(self, engine: "NativeEngine", slot: int) -> None:
        self._engine, self._slot = engine, slot

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        """Return the `count` largest (id, logit) but `without`, largest first, equals by lowest id.

        `ArithmeticError` when the logits are not numbers, which damaged weights bring about.
        """
        excluded = array("I", without)
        ids, logits = (ctypes.c_uint32 * count)(), (ctypes.c_float * count)()
        found = _c().bloom_top(
            self._engine.handle, self._slot, count, _pointer(excluded), len(excluded), ids, logits
        )
        if not found and count and math.isnan(self.at([0])[0]):
            raise ArithmeticError("no logit is a number: the weights are damaged")
        return list(zip(ids[:found], logits[:found], strict=True))

    def at(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of these ids; -inf for ids that are not in the vocabulary."""
        wanted, logits = array("I", ids), (ctypes.c_float * len(ids))()
        _c().bloom_at(self._engine.handle, self._slot, _pointer(wanted), len(wanted), logits)
        return list(logits)

    def all(self) -> "array[float]":
        """Return the logits of every id that the tokenizer knows."""
        logits = array("f", bytes(4 * self._engine.vocabulary))
        if _c().bloom_logits(self._engine.handle, self._slot, _pointer(logits)):
            raise RuntimeError("these logits are of a former step")
        return logits

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        """Return log Σ exp(logit / temperature) over all ids but those in `without`."""
        excluded = array("I", without)
        return float(
            _c().bloom_logsumexp(
                self._engine.handle, self._slot, temperature, _pointer(excluded), len(excluded)
            )
        )


class NativeEngine:
    """Runs a baked model on the processor.

    Only one thread calls it, but `progress` may be read from any.
    """

    name = "native"

    def __init__(
        self,
        model: BakedModel,
        *,
        threads: int = 0,
        kv_bytes: int = 256 << 20,
        cache_bytes: int | None = None,
        isa: str | None = None,
    ) -> None:
        """Make the buffers; the threads start with the first step.

        `threads` is their number, by default one for each core. `kv_bytes` bounds the keys and
        values of all sequences. Up to `cache_bytes` of them (by default half) may be kept of
        sequences that have ended. `isa` names an instruction set, by default the fastest one.
        `ModelError` when the model cannot be run here, or there is no memory for it.
        """
        self.config = model.config
        self.vocabulary = model.n_vocab  # ids that the tokenizer knows
        self._model = model
        self._closing = threading.Lock()  # `progress` is read by other threads
        error = ctypes.create_string_buffer(256)
        self._handle = _c().bloom_engine_new(
            model.handle,
            threads or default_threads(),
            MAX_TOKENS,
            SLOTS,
            isa.encode() if isa else None,
            error,
            len(error),
        )
        if not self._handle:
            raise ModelError(f"{model.path} cannot be run: {error.value.decode()}")
        self.isa = str(_c().bloom_engine_isa(self._handle).decode())
        self.dtype = {8: "8 bits", 4: "4 bits", 32: "float32"}[model.bits]
        page_size = int(_c().bloom_engine_page_size(self._handle))
        try:
            self.pool = PagePool(
                page_size, kv_bytes, kv_bytes // 2 if cache_bytes is None else cache_bytes
            )
        except (OSError, OverflowError, ValueError) as problem:
            _c().bloom_engine_free(self._handle)
            self._handle = None
            raise ModelError(
                f"there is no room for {kv_bytes} bytes of keys and values ({problem})"
            ) from None

    @property
    def handle(self) -> int:
        """The address of the C engine; `RuntimeError` once it is closed."""
        if not self._handle:
            raise RuntimeError("the engine is closed")
        return int(self._handle)

    @property
    def kv_tokens_total(self) -> int:
        """Tokens for which there is memory in all."""
        return self.pool.tokens_total

    @property
    def kv_bytes(self) -> tuple[int, int]:
        """Bytes of keys and values of running sequences, and of ended ones whose pages are kept."""
        return self.pool.bytes_used, self.pool.bytes_cached

    @property
    def progress(self) -> int:
        """A number that changes while a step makes progress; may be read from any thread."""
        with self._closing:
            return int(_c().bloom_progress(self._handle)) if self._handle else 0

    def new_sequence(
        self,
        prompt: Sequence[int] = (),
        capacity: int = 0,
        tenant: str | None = None,
        *,
        warms: bool = False,
    ) -> PagedSequence:
        """Open a sequence with memory for `capacity` tokens, or raise `OutOfMemory`.

        It starts with the tokens of `prompt` that are in the cache, but never with the last one.
        """
        return self.pool.open(prompt, max(capacity, len(prompt) + 1), tenant, warms=warms)

    def release(self, sequence: PagedSequence) -> None:
        """Free the sequence; its pages may stay in the cache."""
        self.pool.release(sequence)

    def forward(self, batch: Sequence[Work[PagedSequence]]) -> list[Logits | None]:
        """Append each work's tokens to its sequence; return the logits after the last of them.

        `OutOfMemory` before any token is appended; `ValueError` for a token outside of the
        vocabulary, a sequence beyond the context, or more than `MAX_TOKENS` sequences.
        """
        for work in batch:
            self.pool.reserve(work.sequence, work.sequence.length + len(work.tokens))
        left = [array("I", work.tokens) for work in batch]
        # The last call computes all logits; what does not fit into it is run before.
        while sum(map(len, left)) > MAX_TOKENS:
            longest = max(range(len(batch)), key=lambda index: len(left[index]))
            size = min(MAX_TOKENS, len(left[longest]) - 1)
            if size < 1:
                raise ValueError(f"a step takes at most {MAX_TOKENS} sequences")
            self._run([(batch[longest].sequence, left[longest][:size], -1)])
            left[longest] = left[longest][size:]
        slots = iter(range(SLOTS))
        works = [
            (work.sequence, tokens, next(slots) if work.wants_logits else -1)
            for work, tokens in zip(batch, left, strict=True)
        ]
        self._run(works)
        return [NativeLogits(self, slot) if slot >= 0 else None for _, _, slot in works]

    def forward_places(
        self, sequence: PagedSequence, tokens: Sequence[int], places: int
    ) -> list[NativeLogits]:
        """Append tokens to one sequence; return the logits after each of the last `places`.

        There are at most `MAX_TOKENS` tokens, and 1 to `SLOTS` places of them. Raises what
        `forward` does.
        """
        if not 0 < places <= min(SLOTS, len(tokens)):
            raise ValueError(f"logits of {places} places of {len(tokens)} tokens are not kept")
        self.pool.reserve(sequence, sequence.length + len(tokens))
        self._run([(sequence, array("I", tokens), 0)], places)
        return [NativeLogits(self, slot) for slot in range(places)]

    def _run(self, works: list[tuple[PagedSequence, "array[int]", int]], places: int = 1) -> None:
        table = (_Work * len(works))()
        for entry, (sequence, tokens, slot) in zip(table, works, strict=True):
            self.pool.grow(sequence, sequence.length + len(tokens))
            entry.tokens, entry.count = tokens.buffer_info()
            entry.start, entry.slot, entry.places = sequence.length, slot, places
            entry.pages = ctypes.addressof(sequence.pointers)
        if _c().bloom_forward(self.handle, table, len(works)):
            raise ValueError(
                "a token is outside of the vocabulary, or a sequence beyond the context"
            )
        for sequence, tokens, _ in works:
            self.pool.extend(sequence, tokens)

    def close(self) -> None:
        """Stop the threads and free all memory; its sequences must not be used afterwards."""
        with self._closing:
            handle, self._handle = self._handle, None
        if handle:
            _c().bloom_engine_free(handle)
            self.pool.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()


def divergence(p: "array[float]", q: "array[float]") -> float:
    """Return the Kullback-Leibler divergence of softmax(q) from softmax(p), in nats."""
    if len(p) != len(q):
        raise ValueError(f"{len(p)} logits cannot be compared with {len(q)}")
    return float(_c().bloom_divergence(_pointer(p), _pointer(q), len(p)))


def default_threads() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # not in a container, or an older kernel
    return min(cores, MAX_THREADS)


def _pointer(values: "array[int] | array[float]") -> ctypes.c_void_p:
    return ctypes.c_void_p(values.buffer_info()[0])


@cache
def _c() -> ctypes.CDLL:
    c, pointer, u32 = library(), ctypes.c_void_p, ctypes.c_uint32
    c.bloom_engine_new.restype = pointer
    c.bloom_engine_new.argtypes = (
        pointer,
        u32,
        u32,
        u32,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    )
    c.bloom_engine_free.argtypes = (pointer,)
    c.bloom_engine_free.restype = None
    c.bloom_engine_isa.argtypes = (pointer,)
    c.bloom_engine_isa.restype = ctypes.c_char_p
    c.bloom_engine_page_size.argtypes = (pointer,)
    c.bloom_engine_page_size.restype = ctypes.c_uint64
    c.bloom_progress.argtypes = (pointer,)
    c.bloom_progress.restype = ctypes.c_uint64
    c.bloom_forward.argtypes = (pointer, ctypes.POINTER(_Work), u32)
    c.bloom_forward.restype = ctypes.c_int
    c.bloom_top.argtypes = (pointer, ctypes.c_int32, u32, pointer, u32, pointer, pointer)
    c.bloom_top.restype = ctypes.c_int64
    c.bloom_at.argtypes = (pointer, ctypes.c_int32, pointer, u32, pointer)
    c.bloom_at.restype = None
    c.bloom_logsumexp.argtypes = (pointer, ctypes.c_int32, ctypes.c_double, pointer, u32)
    c.bloom_logsumexp.restype = ctypes.c_double
    c.bloom_logits.argtypes = (pointer, ctypes.c_int32, pointer)
    c.bloom_logits.restype = ctypes.c_int
    c.bloom_divergence.argtypes = (pointer, pointer, ctypes.c_uint64)
    c.bloom_divergence.restype = ctypes.c_double
    c.bloom_rescored.argtypes = (pointer,)
    c.bloom_rescored.restype = ctypes.c_uint64
    check_struct("bloom_work", _Work)
    return c
