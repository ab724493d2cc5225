"""Vocabularies to cut, as `tokenizer.json` has them, and a cut of them that shares no code."""

import json
import random
from collections.abc import Collection
from functools import cache
from typing import Any

import tokenizers
from tokenizers import models, trainers

from model.names import default_model
from model.text.byte_symbols import SYMBOLS
from model.text.tokenizer import Tokenizer
from model.text.vocabulary import compile_json
from model.vocabulary.samples import samples

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
Json = dict[str, Any]


def demo() -> Json:
    data: Json = json.loads((default_model() / "tokenizer.json").read_text())
    return data


def trained() -> Json:
    """As BLOOM's was made: trained by the library on many scripts, with tokens added later."""
    data = demo()
    blank = tokenizers.Tokenizer(models.BPE())
    blank.pre_tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data)).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(SYMBOLS),
        show_progress=False,
    )
    blank.train_from_iterator([sample.text for sample in samples()] * 2, trainer)
    data["model"] = json.loads(blank.to_str())["model"]
    plain = data["added_tokens"][0] | {"special": False}
    data["added_tokens"] += [
        plain | {"content": content, "id": len(data["model"]["vocab"]) + at, **flags}
        for at, (content, flags) in enumerate(
            [
                ("<|im_end|>", {"special": True}),
                ("नमस्ते", {"normalized": True}),
                ("<think>", {"lstrip": True}),
                ("中", {"single_word": True}),
            ]
        )
    ]
    return data


def tangled() -> Json:
    """Random merges of few letters: many of them end in the same token by other ways."""
    data, chance = demo(), random.Random(7)
    vocab = {text: id_ for id_, text in enumerate([*SPECIAL, *sorted(SYMBOLS)])}
    known = list("abcdĠ")
    merges: list[list[str]] = []
    while len(merges) < 600:
        left, right = chance.choice(known), chance.choice(known)
        if len(left + right) > 7 or [left, right] in merges:
            continue
        merges.append([left, right])
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            known.append(left + right)
    data["model"] |= {"vocab": vocab, "merges": merges}
    return data


SOURCES = {"demo": demo, "trained": trained, "tangled": tangled}


@cache
def vocabulary(name: str) -> Json:
    return SOURCES[name]()


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_bytes(compile_json(vocabulary(name)))


def cut_json(data: Json, ids: Collection[int]) -> Json:
    """Keep some entries of a `tokenizer.json`, and the merges that all three tokens are left of."""
    new = {id_: place for place, id_ in enumerate(sorted(ids))}
    vocab = {text: new[id_] for text, id_ in data["model"]["vocab"].items() if id_ in new}
    pairs = [each.split(" ") if isinstance(each, str) else each for each in data["model"]["merges"]]
    merges = [each for each in pairs if {*each, "".join(each)} <= vocab.keys()]
    added = [each | {"id": new[each["id"]]} for each in data["added_tokens"]]
    model = data["model"] | {"vocab": vocab, "merges": merges}
    return data | {"model": model, "added_tokens": added}
