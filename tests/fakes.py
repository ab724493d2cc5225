"""Stand-ins that make the layers above the engine testable without weights."""

import json
import math
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from model.config import BloomConfig
from model.engine.contract import Logits, OutOfMemory, Work
from model.limits import DEFAULT_LIMITS, Limits
from model.load import LoadedModel, ModelInfo
from model.names import default_model
from model.serving.scheduler import Scheduler
from model.text.byte_symbols import SYMBOLS
from model.text.chat import ChatTemplate
from model.text.tokenizer import END, Tokenizer
from model.text.vocabulary import compile_json

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def byte_tokenizer(*further: str) -> Tokenizer:
    """A tokenizer with one token a byte after the four special ones: every cut that can be.

    `further` special tokens come behind the bytes.
    """
    symbols = sorted(SYMBOLS)
    vocab = {text: id_ for id_, text in enumerate([*SPECIAL, *symbols])}
    data = json.loads((default_model() / "tokenizer.json").read_text())
    data["model"] |= {"vocab": vocab, "merges": []}
    data["added_tokens"] += [
        data["added_tokens"][0] | {"content": text, "id": len(vocab) + at}
        for at, text in enumerate(further)
    ]
    return Tokenizer.from_bytes(compile_json(data))


@dataclass(eq=False)
class FakeSequence:
    """The tokens that a fake engine was given."""

    tokens: list[int] = field(default_factory=list)
    written: int = 0
    prompt: list[int] = field(default_factory=list)
    capacity: int = 0
    cached_for_tenant: int = 0

    @property
    def length(self) -> int:
        return len(self.tokens)


class OneHot:
    """Logits that leave no choice."""

    def __init__(self, id_: int, size: int) -> None:
        self.id, self.size = id_, size

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        others = (id_ for id_ in range(self.size) if id_ != self.id)
        every = [(self.id, 100.0), *((id_, -100.0) for id_ in others)]
        return [pair for pair in every if pair[0] not in without][:count]

    def at(self, ids: Sequence[int]) -> list[float]:
        return [100.0 if id_ == self.id else -100.0 for id_ in ids]

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        return -math.inf if self.id in without else 100.0 / temperature


class FakeEngine:
    """Writes a fixed reply to every prompt, and lets a test hold it, watch it, or break it."""

    name, dtype = "fake", "none"

    def __init__(
        self, reply: Sequence[int], *, vocabulary: int = 260, max_context: int = 2048
    ) -> None:
        self.config = BloomConfig(
            vocab_size=vocabulary, hidden_size=64, layers=1, heads=1, max_context=max_context
        )
        self.reply = list(reply)
        self.echo = False  # whether to write the prompt again instead
        self.steps: list[list[tuple[FakeSequence, list[int]]]] = []
        self.open: set[FakeSequence] = set()
        self.most_open = 0
        self.before_step: Callable[[], None] = lambda: None
        self.memory: int | None = None  # tokens
        self.remembers = 0  # how many tokens of a prompt it claims to know already
        self.remembers_of: object = ...  # and whose they were; by default everybody's
        self.parts = 0  # of steps, that it claims to have done
        self.closed = threading.Event()
        self.running = threading.Event()
        self.running.set()  # clear it to hold the engine before its next step

    @property
    def kv_tokens_total(self) -> int | None:
        return self.memory

    @property
    def kv_bytes(self) -> tuple[int, int]:
        return 0, 0

    @property
    def progress(self) -> int:
        return self.parts

    def new_sequence(
        self,
        prompt: Sequence[int] = (),
        capacity: int = 0,
        tenant: str | None = None,
        *,
        warms: bool = False,
    ) -> FakeSequence:
        promised = sum(sequence.capacity for sequence in self.open)
        if self.memory is not None and promised + capacity > self.memory:
            raise OutOfMemory(capacity, self.memory - promised)
        known = list(prompt[: self.remembers])
        own = len(known) if self.remembers_of in (tenant, ...) else 0
        sequence = FakeSequence(known, capacity=capacity, cached_for_tenant=own)
        self.open.add(sequence)
        self.most_open = max(self.most_open, len(self.open))
        return sequence

    def release(self, sequence: FakeSequence) -> None:
        self.open.remove(sequence)

    def close(self) -> None:
        self.closed.set()

    def forward(self, batch: Sequence[Work[FakeSequence]]) -> list[Logits | None]:
        self.running.wait(30)
        self.before_step()
        self.steps.append([(work.sequence, list(work.tokens)) for work in batch])
        return [self._one(work) for work in batch]

    def _one(self, work: Work[FakeSequence]) -> Logits | None:
        sequence = work.sequence
        sequence.tokens += work.tokens
        if not work.wants_logits:
            return None
        if not sequence.written:
            sequence.prompt = list(sequence.tokens)
        reply = sequence.prompt if self.echo else self.reply
        token = reply[sequence.written] if sequence.written < len(reply) else END
        sequence.written += 1
        return OneHot(token, self.config.vocab_size)


def fake_model(engine: FakeEngine, limits: Limits = DEFAULT_LIMITS) -> LoadedModel:
    """A model that is ready, on a fake engine."""
    tokenizer = byte_tokenizer()
    scheduler = Scheduler(engine, tokenizer, limits)
    scheduler.start()
    info = ModelInfo(
        name="fake",
        architecture="BLOOM",
        engine=engine.name,
        dtype=engine.dtype,
        parameters=1,
        size_bytes=1,
        max_context=engine.config.max_context,
        vocab_size=tokenizer.size,
        layers=1,
        hidden=64,
        heads=1,
        license=None,
    )
    return LoadedModel(engine.config, tokenizer, ChatTemplate(), scheduler, info)
