"""A checkpoint's defaults for sampling and for ending replies, read as transformers reads them.

They are in `generation_config.json`, or else in `config.json`. If the file that is read has no
`eos_token_id`, no token ends a reply, even if the other file has one, as in transformers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.files import read_object, shown
from model.sampling import DEFAULTS, MAX_TOP_K, SamplingParams

_SMALLEST = 1e-12  # a top_p that keeps only the likeliest token, as 0 does in transformers
# Fields that change a text in transformers and are not supported here, and the values with which
# they change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "constraints": (),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1,),
    "watermarking_config": (),
}


@dataclass(frozen=True)
class GenerationConfig:
    """A checkpoint's own defaults; `notes` say which of its values are not used as written."""

    eos_token_ids: tuple[int, ...]  # each is in the vocabulary; without any, only length ends
    sampling: SamplingParams = DEFAULTS
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path, vocab_size: int) -> "GenerationConfig":
        """Read a folder's files; `ModelError` when one is damaged or names no ids as ends."""
        data: Mapping[str, Any] = {}
        for name in ("generation_config.json", "config.json"):
            path = folder / name
            try:
                data = read_object(path)
                break
            except FileNotFoundError:
                continue
        try:
            return cls.from_dict(data, vocab_size, path.name)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], vocab_size: int, file: str = "generation_config.json"
    ) -> "GenerationConfig":
        """Take the fields of a parsed file; odd values of sampling are noted, never refused."""
        notes: list[str] = []
        eos = _eos(data, vocab_size, file, notes)
        sampling = _sampling(data, file, notes)
        for field, neutral in _NEUTRAL.items():
            value = data.get(field)
            if value is not None and value != [] and value not in neutral:
                notes.append(f"{file}: {field} {shown(value)} is not supported, and has no effect")
        return cls(eos, sampling, tuple(notes))


def _eos(data: Mapping[str, Any], vocab_size: int, file: str, notes: list[str]) -> tuple[int, ...]:
    value = data.get("eos_token_id")
    found: dict[int, None] = {}  # in order, each once
    beyond: list[object] = []
    for id_ in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(id_, bool) or not isinstance(id_, int | float) or id_ != id_ // 1:
            raise ModelError(
                f"eos_token_id must be an id, a list of ids or null, not {shown(value)}"
            )
        if not 0 <= id_ < vocab_size:
            beyond.append(id_)
        else:
            found[int(id_)] = None
    if beyond:
        others = f" and {len(beyond) - 1:,} others are not ids" if beyond[1:] else " is not an id"
        notes.append(
            f"{file}: eos_token_id {shown(beyond[0])}{others} of the vocabulary, and"
            f" {'end' if beyond[1:] else 'ends'} no reply"
        )
    if not found:
        notes.append(
            f"{file} names no eos_token_id, so that a reply ends only by its length or a stop"
            " string; it is as in transformers"
        )
    return tuple(found)


def _sampling(data: Mapping[str, Any], file: str, notes: list[str]) -> SamplingParams:
    taken: dict[str, Any] = {}
    for name, take in _TAKEN.items():
        if (value := data.get(name)) is None:
            continue
        number = _number(value)
        result = None if number is None else take(number)
        if result is None:
            kept = getattr(DEFAULTS, name)
            notes.append(f"{file}: {name} {shown(value)} cannot be used; {kept} is taken")
            continue
        taken[name] = result
        if name == "top_k" and result != number:
            notes.append(f"{file}: top_k {shown(value)} is taken as {result}")
    sample = data.get("do_sample")
    if sample is not None and not sample:
        taken["temperature"] = 0.0
    return SamplingParams(**taken)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _top_k(value: float) -> int | None:
    """Take a whole number; 0 or less considers all, as 0 does in transformers."""
    return min(max(int(value), 0), MAX_TOP_K) if value == int(value) else None


def _top_p(value: float) -> float | None:
    """Take a share; above 1 it has no effect in transformers, and 0 keeps the likeliest token."""
    return None if value < 0 else min(max(value, _SMALLEST), 1.0)


_TAKEN: dict[str, Callable[[float], float | None]] = {
    "temperature": lambda value: value if value >= 0 else None,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": lambda value: value if value <= 1 and value >= 0 else None,
    "repetition_penalty": lambda value: value if value > 0 else None,
}
