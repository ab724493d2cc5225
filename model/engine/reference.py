"""The reference engine: transformers' own BLOOM, against which other engines are tested.

It is simple rather than fast: sequences that decode are padded on the left into one batch at each
step, and everything else runs alone.
"""

import ctypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import BloomConfig as TheirConfig
from transformers import BloomForCausalLM, DynamicCache
from transformers.utils import logging as transformers_logging

from model.config import BloomConfig
from model.engine.contract import Logits, Work
from model.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


# By name, without the prefix `transformer.`: the shape, and the values one after the other.
Weights = Mapping[str, tuple[tuple[int, ...], "ctypes.Array[ctypes.c_float]"]]


@dataclass(eq=False)
class ReferenceSequence:
    """Keys and values of one sequence, one pair a layer."""

    cache: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # [1, heads, length, size]
    cached_for_tenant: int = 0  # nothing is cached here

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return self.cache[0][0].shape[2] if self.cache else 0


class ReferenceLogits:
    """Logits as a tensor, float32 on the processor."""

    def __init__(self, values: Tensor) -> None:
        self.values = values  # [vocabulary]

    def top(self, count: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        """Return the `count` largest (id, logit) except for `without`, equal ones by lowest id."""
        skipped = {id_ for id_ in without if id_ < len(self.values)}
        values = self.values.clone()
        values[list(skipped)] = -torch.inf
        count = min(count, len(values) - len(skipped))
        if not count:
            return []
        edge = values.topk(count).values[-1]
        ids = (values >= edge).nonzero().flatten()  # ascending, with all that equal the edge
        order = values[ids].sort(descending=True, stable=True)
        ids = ids[order.indices[:count]]
        return list(zip(ids.tolist(), values[ids].tolist(), strict=True))

    def at(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of these ids; -inf for ids that the vocabulary lacks."""
        inside = [id_ if id_ < len(self.values) else -1 for id_ in ids]
        values = self.values[inside].tolist()
        return [v if id_ >= 0 else -torch.inf for id_, v in zip(inside, values, strict=True)]

    def logsumexp(self, temperature: float, without: Collection[int]) -> float:
        """Return log Σ exp(logit / temperature) over all ids but those in `without`."""
        values = self.values.double() / temperature
        values[[id_ for id_ in without if id_ < len(values)]] = -torch.inf
        return values.logsumexp(0).item()


class ReferenceEngine:
    """Runs a checkpoint folder through `BloomForCausalLM`, on a GPU when there is one."""

    name = "reference"

    def __init__(
        self,
        folder: Path,
        config: BloomConfig,
        *,
        vocabulary: int,
        dtype: str = "float32",
        device: str = "auto",
        weights: Weights | None = None,
    ) -> None:
        """Load the weights; `vocabulary` is the number of ids that may be drawn.

        `weights` are taken in place of the folder's, where transformers alone cannot read these.
        """
        if dtype not in DTYPES:
            raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise ModelError("device is cuda, but torch finds no GPU")
        self.config, self.dtype = config, dtype
        self._vocabulary = vocabulary
        self._device = torch.device(device)
        try:
            if weights is None:
                self._model = BloomForCausalLM.from_pretrained(
                    folder, dtype=DTYPES[dtype], local_files_only=True, weights_only=True
                )
            else:
                self._model = _of_weights(folder, weights, DTYPES[dtype])
            self._model.to(self._device).eval()
        except (OSError, ValueError, RuntimeError) as error:  # no memory, or an odd field
            raise ModelError(f"{folder} cannot be loaded by transformers: {error}") from None

    @property
    def kv_tokens_total(self) -> None:
        """Nothing bounds the keys and values here."""

    @property
    def kv_bytes(self) -> tuple[int, int]:
        """Always 0: torch holds them, and they are not counted."""
        return 0, 0

    @property
    def progress(self) -> int:
        """Always 0: torch does not show its progress, so only the processor time does."""
        return 0

    def new_sequence(
        self,
        prompt: Sequence[int] = (),
        capacity: int = 0,
        tenant: str | None = None,
        *,
        warms: bool = False,
    ) -> ReferenceSequence:
        """Open an empty sequence."""
        return ReferenceSequence()

    def close(self) -> None:
        """Leave the memory to the garbage collector."""

    def release(self, sequence: ReferenceSequence) -> None:
        """Free the sequence's keys and values."""
        sequence.cache.clear()

    @torch.inference_mode()
    def forward(self, batch: Sequence[Work[ReferenceSequence]]) -> list[Logits | None]:
        """Append each work's tokens to its sequence; return the logits after the last token."""
        decoding = [work for work in batch if len(work.tokens) == 1 and work.sequence.length]
        together = dict(zip(map(id, decoding), self._run(decoding), strict=True))
        results: list[Logits | None] = []
        for work in batch:
            logits = together[id(work)] if id(work) in together else self._run([work])[0]
            results.append(logits if work.wants_logits else None)
        return results

    def _run(self, works: Sequence[Work[ReferenceSequence]]) -> list[Logits]:
        """Run works that have the same number of tokens, as one batch padded on the left."""
        if not works:
            return []
        sequences = [work.sequence for work in works]
        lengths = [sequence.length for sequence in sequences]
        longest, new = max(lengths), len(works[0].tokens)
        mask = torch.zeros(len(works), longest + new, dtype=torch.long)
        for row, length in enumerate(lengths):
            mask[row, longest - length :] = 1
        cache = DynamicCache(config=self._model.config)
        if longest:
            for layer in range(self.config.layers):
                keys, values = (
                    torch.cat(
                        [
                            pad(sequence.cache[layer][part], (0, 0, longest - length, 0))
                            for sequence, length in zip(sequences, lengths, strict=True)
                        ]
                    )
                    for part in (0, 1)
                )
                cache.update(keys, values, layer)
        out = self._model(
            input_ids=torch.tensor([list(work.tokens) for work in works], device=self._device),
            attention_mask=mask.to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            sequence.cache = [
                (
                    layer.keys[row : row + 1, :, longest - length :],
                    layer.values[row : row + 1, :, longest - length :],
                )
                for layer in out.past_key_values.layers
            ]
        return [
            ReferenceLogits(logits[: self._vocabulary].float().cpu())
            for logits in out.logits[:, -1]
        ]


def _of_weights(folder: Path, weights: Weights, dtype: torch.dtype) -> BloomForCausalLM:
    config = TheirConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    state = {
        name if name.startswith("lm_head.") else f"transformer.{name}": torch.frombuffer(
            values, dtype=torch.float32
        ).reshape(shape)
        for name, (shape, values) in weights.items()
    }
    return BloomForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
