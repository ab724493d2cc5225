"""From a checkpoint folder to a model that answers: opened, checked, started and warmed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.chat import ChatTemplate
from model.checkpoint import Checkpoint
from model.config import BloomConfig
from model.engine import Engine
from model.errors import ModelError
from model.generation import Done, Failed, Request
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.tokenizer import Tokenizer

ENGINES = ("reference",)
OURS = SamplingParams()


@dataclass(frozen=True)
class ModelInfo:
    """What a person may want to know of the model that answers."""

    name: str
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
    license: str | None


@dataclass(frozen=True)
class Model:
    """A model that is ready to generate."""

    config: BloomConfig
    tokenizer: Tokenizer
    chat: ChatTemplate
    scheduler: Scheduler
    info: ModelInfo
    sampling: SamplingParams = OURS  # what a request that names nothing gets

    def close(self, grace: float = 0.0) -> None:
        """Stop generating; running generations get `grace` seconds."""
        self.scheduler.close(grace)


def default_model() -> Path:
    """Return the folder of the demo model that the project ships."""
    return Path(__file__).parent / "demo" / "checkpoint"


def load(
    folder: Path,
    *,
    engine: str = "reference",
    dtype: str = "float32",
    device: str = "auto",
    max_batch: int = 8,
    max_queue: int = 32,
) -> Model:
    """Open a checkpoint folder and generate one token; `ModelError` when it cannot be used."""
    checkpoint = Checkpoint.open(folder)
    tokenizer = checkpoint.tokenizer()
    chat = ChatTemplate.open(folder)
    sampling = sampling_of(folder)
    runs = _engine(engine)(checkpoint, tokenizer, dtype, device)
    scheduler = Scheduler(runs, tokenizer, max_batch=max_batch, max_queue=max_queue)
    scheduler.start()
    try:
        _warm(scheduler, tokenizer)
    except ModelError:
        scheduler.close()
        raise
    config = checkpoint.config
    info = ModelInfo(
        name=model_name(folder),
        architecture="BLOOM",
        engine=runs.name,
        dtype=runs.dtype,
        parameters=checkpoint.parameters,
        size_bytes=checkpoint.size_bytes,
        max_context=config.max_context,
        vocab_size=tokenizer.size,
        layers=config.layers,
        hidden=config.hidden_size,
        heads=config.heads,
        license=license_of(folder),
    )
    return Model(config, tokenizer, chat, scheduler, info, sampling)


def _engine(name: str) -> Callable[[Checkpoint, Tokenizer, str, str], Engine[Any]]:
    if name not in ENGINES:
        raise ModelError(f"there is no engine {name!r}; there is {', '.join(ENGINES)}")

    def reference(
        checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str, device: str
    ) -> Engine[Any]:
        try:
            from model.reference import ReferenceEngine
        except ModuleNotFoundError as error:
            raise ModelError(
                f"the reference engine needs {error.name};"
                " install piBLOOM with its extra 'reference'"
            ) from None
        return ReferenceEngine(
            checkpoint.folder,
            checkpoint.config,
            vocabulary=tokenizer.size,
            dtype=dtype,
            device=device,
        )

    return reference


def _warm(scheduler: Scheduler, tokenizer: Tokenizer) -> None:
    """Generate one token, so that whoever is told "ready" waits for nothing more."""
    request = Request(
        prompt=tuple(tokenizer.ids("Hello")),
        max_new_tokens=1,
        sampling=SamplingParams(temperature=0),
    )
    *_, last = scheduler.submit(request).events()
    if not isinstance(last, Done):
        reason = last.message if isinstance(last, Failed) else "no token came"
        raise ModelError(f"the model was loaded, but cannot generate: {reason}")


def sampling_of(folder: Path) -> SamplingParams:
    """Return the folder's `generation_config.json` as defaults; ours for what it does not say."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return OURS
    names = ("temperature", "top_k", "top_p", "repetition_penalty")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return SamplingParams(**{name: said[name] for name in names if said.get(name) is not None})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be used: {error}") from None


def model_name(folder: Path) -> str:
    """Return what the model in a folder is called."""
    demo = folder.resolve() == default_model().resolve()
    return "pibloom-demo" if demo else folder.resolve().name


def license_of(folder: Path) -> str | None:
    """Return the licence that the folder's model card names in its front matter, if any."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if line.strip() == "---":
            return None
        if key.strip() == "license":
            return value.strip() or None
    return None
