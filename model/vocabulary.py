"""A checkpoint's `tokenizer.json`, compiled to the bytes that the native tokenizer works on."""

import json
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import ModelError

# Ids 0-3 in every BLOOM. Only the end may be drawn; none is ever shown.
UNKNOWN, BEGIN, END, PADDING = range(4)
SPECIAL = {"<unk>": UNKNOWN, "<s>": BEGIN, "</s>": END, "<pad>": PADDING}

_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # the C knows this one
_HEADER = struct.Struct("<4s11I")  # before the 256 single bytes: struct tokenizer_header
_MULTIPLIER = 0x9E3779B97F4A7C15


def compile_vocabulary(folder: Path) -> bytes:
    """Read `tokenizer.json`; `ModelError` when it is missing, damaged or not BLOOM's kind."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing; a checkpoint folder needs its tokenizer")
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    try:
        return compile_json(data)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ModelError(f"{path} cannot be read: it is no tokenizer ({error!r})") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def compile_json(data: Mapping[str, Any]) -> bytes:
    """Compile a parsed `tokenizer.json`."""
    _check_kind(data)
    model = data["model"]
    vocab: dict[str, int] = model["vocab"]
    texts = {id_: _bytes(symbols) for symbols, id_ in vocab.items() if symbols not in SPECIAL}
    added = {int(token["id"]): str(token["content"]).encode() for token in data["added_tokens"]}
    texts.update(added)
    size = max(texts) + 1
    if sorted(texts) != list(range(size)):
        raise ModelError("its ids leave some out")
    found = {
        text: vocab.get(text, next((i for i, t in added.items() if t == text.encode()), None))
        for text in SPECIAL
    }
    if found != SPECIAL:
        raise ModelError(f"expected BLOOM's special tokens {SPECIAL}, found {found}")
    singles = [vocab[symbol] for _, symbol in sorted(_SYMBOL_OF.items()) if symbol in vocab]
    if len(singles) < 256:
        raise ModelError("expected a byte-level tokenizer, as BLOOM's is: it lacks some bytes")

    merges = array("I")
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        merges.extend((vocab[left], vocab[right], vocab[left + right]))
    slots = _hash_table(merges)
    starts, blob = array("I", [0]), bytearray()
    for id_ in range(size):
        blob += texts[id_]
        starts.append(len(blob))
    longest_first = array("I", sorted(added, key=lambda id_: (-len(added[id_]), id_)))

    parts = [
        starts.tobytes(),
        bytes(blob),
        merges.tobytes(),
        slots.tobytes(),
        longest_first.tobytes(),
    ]
    places, at = [], _HEADER.size + 4 * 256
    for part in parts:
        places.append(at)
        at += -(-len(part) // 4) * 4
    header = _HEADER.pack(
        b"BTOK",
        1,
        size,
        len(merges) // 3,
        len(slots),
        len(added),
        places[0],
        places[1],
        len(blob),
        *places[2:],
    )
    padded = [part.ljust(-(-len(part) // 4) * 4, b"\0") for part in parts]
    return header + array("I", singles).tobytes() + b"".join(padded)


def _check_kind(data: Mapping[str, Any]) -> None:
    """Refuse whatever would be split otherwise than the C does it."""
    model = data["model"]
    if model["type"] != "BPE":
        raise ModelError(f"expected a BPE, as BLOOM's tokenizer is, found {model['type']}")
    odd = {
        name: model.get(name)
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model.get(name)
    }
    if odd or model.get("ignore_merges"):
        raise ModelError(f"expected a plain BPE, as BLOOM's tokenizer is, found {odd}")
    if data.get("normalizer") is not None:
        raise ModelError("expected no normalizer, as BLOOM's tokenizer has none")
    steps = data["pre_tokenizer"].get("pretokenizers", [data["pre_tokenizer"]])
    kinds = [step["type"] for step in steps]
    split = steps[0]
    if (
        kinds != ["Split", "ByteLevel"]
        or split["pattern"] != {"Regex": _PATTERN}
        or split["behavior"] != "Isolated"
        or split["invert"]
        or steps[1]["add_prefix_space"]
        or steps[1]["use_regex"]
        or (data.get("decoder") or {}).get("type") != "ByteLevel"
    ):
        raise ModelError("expected BLOOM's way of splitting a text, as a byte-level tokenizer")
    for token in data["added_tokens"]:
        if token["single_word"] or token["lstrip"] or token["rstrip"] or not token["content"]:
            raise ModelError(f"the added token {token['content']!r} asks for what BLOOM's do not")


def _hash_table(merges: "array[int]") -> "array[int]":
    """Place each merge by its pair, with linear probing, at a load of two thirds at most."""
    count = len(merges) // 3
    size = 1
    while size < count * 3 // 2 + 1:
        size *= 2
    table, mask = array("i", [-1]) * size, size - 1
    pairs = set()
    for merge in range(count):
        left, right = merges[3 * merge], merges[3 * merge + 1]
        if (left, right) in pairs:
            raise ModelError("a pair of tokens is merged twice")
        pairs.add((left, right))
        slot = ((left << 32 | right) * _MULTIPLIER >> 32) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = merge
    return table


def _byte_symbols() -> dict[str, int]:
    """Return the byte that each of GPT-2's 256 printable stand-ins means (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_symbols()
SYMBOLS = frozenset(_BYTE_OF)  # the characters that vocabularies are written in
_SYMBOL_OF = {byte: symbol for symbol, byte in _BYTE_OF.items()}


def _bytes(symbols: str) -> bytes:
    return bytes(_BYTE_OF[symbol] for symbol in symbols)
