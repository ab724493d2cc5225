"""What the post-processor of a `tokenizer.json` adds to a text's tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from model.errors import ModelError
from model.text.compiled import TRIM_BUT_FIRST, TRIM_SPACES

_MOST_AROUND = 64  # tokens of a prompt that a post-processor adds, and the text itself
_TEXT = -1  # where the text stands among those
TokenIds = list[int]


def tokens_around(processor: Any, size: int) -> tuple[list[int], list[int]]:
    """Return the ids that a post-processor puts before and behind a prompt."""
    parts: list[TokenIds] = [[_TEXT]]
    for step in _flat(processor):
        parts = _processed(step, parts)
        if sum(map(len, parts)) > _MOST_AROUND:
            raise ModelError(f"its post_processor adds more than {_MOST_AROUND - 1} tokens")
    ids = [id_ for part in parts for id_ in part]
    if ids.count(_TEXT) != 1:
        raise ModelError("its post_processor does not put the text in once")
    if not all(id_ == _TEXT or (type(id_) is int and 0 <= id_ < size) for id_ in ids):
        raise ModelError("its post_processor adds an id that the vocabulary lacks")
    place = ids.index(_TEXT)
    return ids[:place], ids[place + 1 :]


def offset_trimming(processor: Any) -> int:
    """Return how offsets are shortened: not, by spaces, or but for one at the start."""
    found = [
        TRIM_BUT_FIRST if step["add_prefix_space"] else TRIM_SPACES
        for step in _flat(processor)
        if step.get("trim_offsets")
    ]
    if len(found) > 1:
        raise ModelError("its post_processor has trim_offsets twice, which is not supported")
    return found[0] if found else 0


def _flat(processor: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the processors of a sequence, which may hold further ones."""
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for each in processor["processors"]:
            yield from _flat(each)
    else:
        yield processor


def _processed(step: Mapping[str, Any], parts: list[TokenIds]) -> list[TokenIds]:
    """Return what a processor makes of the parts that the one before it left."""
    match step["type"]:
        case "ByteLevel":  # touches offsets only
            return parts
        case "BertProcessing" | "RobertaProcessing":
            cls, sep = [step["cls"][1]], [step["sep"][1]]
            further = [] if step["type"] == "BertProcessing" else sep
            return [[*(further if at else cls), *part, *sep] for at, part in enumerate(parts)]
        case "TemplateProcessing":
            if len(parts) > 2:
                raise ModelError("its post_processor has a template that is given three parts")
            return list(_filled(step, parts))
    raise ModelError(f"the post_processor {step['type']!r:.80} is not supported")


def _filled(step: Mapping[str, Any], parts: list[TokenIds]) -> Iterator[TokenIds]:
    """Yield the parts of a template; two parts, as a template makes, are taken for a pair."""
    for piece in step["single" if len(parts) == 1 else "pair"]:
        if "Sequence" in piece:
            yield parts[piece["Sequence"]["id"] != "A"]
        else:
            ids = step["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
            if _TEXT in ids:
                raise ModelError("its post_processor adds an id that the vocabulary lacks")
            yield list(ids)
