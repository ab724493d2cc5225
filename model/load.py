"""From a baked file or a checkpoint folder to a running model: opened, started and warmed up."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.baked.card import ModelCard
from model.baked.file import BakedModel, is_baked
from model.baked.source import card_of, located
from model.config import BloomConfig
from model.engine.contract import Engine
from model.errors import ModelError
from model.limits import DEFAULT_LIMITS, Limits
from model.sampling import DEFAULTS, SamplingParams
from model.serving.events import Done, Failed
from model.serving.request import GenerationRequest
from model.serving.scheduler import Scheduler
from model.text.chat import TOKENS, ChatSource, ChatTemplate
from model.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelInfo(ModelCard):
    """Facts about the model, for people: its card, and how it runs."""

    architecture: str
    engine: str
    dtype: str
    parameters: int
    size_bytes: int  # of the weights on disk
    max_context: int  # tokens
    vocab_size: int  # tokens that can be drawn
    layers: int
    hidden: int
    heads: int


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to generate."""

    config: BloomConfig
    tokenizer: Tokenizer
    chat: ChatTemplate
    scheduler: Scheduler
    info: ModelInfo
    sampling: SamplingParams = DEFAULTS  # for fields that a request does not name

    def close(self, grace: float = 0.0) -> None:
        """Stop generating; running generations get `grace` seconds."""
        self.scheduler.close(grace)


@dataclass(frozen=True)
class _Opened:
    """A model that is open, before its scheduler is made."""

    engine: Engine[Any]
    tokenizer: Tokenizer
    chat: ChatSource
    sampling: SamplingParams
    notes: tuple[str, ...]  # which of its defaults are not used as written
    card: ModelCard
    parameters: int
    size_bytes: int


def load(
    path: Path,
    *,
    engine: str = "native",
    bits: int = 8,
    threads: int = 0,
    kv_bytes: int = 256 << 20,
    dtype: str = "float32",
    device: str = "auto",
    limits: Limits = DEFAULT_LIMITS,
    chat_template: str = "",
) -> LoadedModel:
    """Open a model and generate one token; `ModelError` when it cannot be used.

    The native engine serves a baked file, and a checkpoint folder by way of the cache, with `bits`,
    `threads` (0: every core) and `kv_bytes` for keys and values; the reference engine serves a
    folder, with `dtype` on `device`. `chat_template` names one to use in place of the model's own.
    """
    openers: dict[str, Callable[[], _Opened]] = {
        "native": lambda: _open_native(path, bits, threads, kv_bytes),
        "reference": lambda: _open_reference(path, dtype, device),
    }
    if engine not in openers:
        raise ModelError(f"there is no engine {engine!r}; there is {', '.join(openers)}")
    path = located(path)
    opened = openers[engine]()
    for note in opened.notes:
        log.warning("%s", note)
    chat = _chat(opened, chat_template)
    runs, config = opened.engine, opened.engine.config
    scheduler = Scheduler(runs, opened.tokenizer, limits)
    scheduler.start()
    try:
        _warm(scheduler, opened.tokenizer)
    except BaseException:
        scheduler.close()
        raise
    origin = "the setting PIBLOOM_CHAT_TEMPLATE" if chat_template else opened.chat.origin
    info = ModelInfo(
        **vars(replace(opened.card, chat_origin=origin or None)),
        architecture="BLOOM",
        engine=runs.name,
        dtype=runs.dtype,
        parameters=opened.parameters,
        size_bytes=opened.size_bytes,
        max_context=scheduler.max_context,
        vocab_size=opened.tokenizer.size,
        layers=config.layers,
        hidden=config.hidden_size,
        heads=config.heads,
    )
    return LoadedModel(config, opened.tokenizer, chat, scheduler, info, opened.sampling)


def _open_native(path: Path, bits: int, threads: int, kv_bytes: int) -> _Opened:
    from model.engine.native import NativeEngine

    if not is_baked(path):
        from model.baked.cache import baked_copy  # a baked file starts sooner without it

        path = baked_copy(path, bits)
    baked = BakedModel(path)
    _ = baked.config  # says so when the file holds a tokenizer alone
    described = baked.metadata
    tokenizer = baked.tokenizer()
    if tokenizer.size != baked.n_vocab:
        raise ModelError(f"{path} cannot be used: its tokenizer is not the one of its weights")
    try:
        chat = ChatSource(
            described["chat_template"],
            dict(described.get("chat_tokens", TOKENS)),
            str(described.get("chat_problem", "")),
            str(described.get("chat_origin", "")),
        )
        sampling = SamplingParams(**described["sampling"])
        notes = tuple(map(str, described["notes"]))
        parameters = int(described["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be used: its description is damaged ({error})") from None
    return _Opened(
        NativeEngine(baked, threads=threads, kv_bytes=kv_bytes),
        tokenizer,
        chat,
        sampling,
        notes,
        card_of(baked),
        parameters,
        baked.size_bytes,
    )


def _open_reference(folder: Path, dtype: str, device: str) -> _Opened:
    from model.baked.bake import checkpoint_card
    from model.checkpoint.folder import Checkpoint
    from model.checkpoint.weights import Reader

    if is_baked(folder):
        raise ModelError(f"{folder} is baked, and the reference engine reads a checkpoint folder")
    checkpoint = Checkpoint.open(folder)
    tokenizer = checkpoint.tokenizer()
    chat, generation = ChatSource.read(folder), checkpoint.generation
    try:
        from model.engine.reference import ReferenceEngine
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the reference engine needs {error.name}; install piBLOOM with its extra 'reference'"
        ) from None
    weights = None
    if checkpoint.gptq:
        with Reader(folder) as reader:
            weights = {
                info.name: (info.shape, reader.whole(info).values) for info in checkpoint.tensors
            }
    engine = ReferenceEngine(
        folder,
        checkpoint.config,
        vocabulary=tokenizer.size,
        dtype=dtype,
        device=device,
        weights=weights,
    )
    return _Opened(
        engine,
        tokenizer,
        chat,
        generation.sampling,
        generation.notes,
        checkpoint_card(checkpoint),
        checkpoint.parameters,
        checkpoint.size_bytes,
    )


def _chat(opened: _Opened, named: str) -> ChatTemplate:
    """Use the template that the setting names, or else the model's own."""
    if named:
        return ChatTemplate.named(named, opened.chat.tokens, opened.tokenizer.hidden)
    return ChatTemplate.of(opened.chat, opened.tokenizer.hidden)


def _warm(scheduler: Scheduler, tokenizer: Tokenizer) -> None:
    """Generate one token, so that the first request after "ready" is as fast as later ones."""
    request = GenerationRequest(
        prompt=tuple(tokenizer.ids("Hello")),
        max_new_tokens=1,
        sampling=SamplingParams(temperature=0),
    )
    *_, last = scheduler.submit(request).events()
    if not isinstance(last, Done):
        reason = last.message if isinstance(last, Failed) else "no token came"
        raise ModelError(f"the model was loaded, but cannot generate: {reason}")
