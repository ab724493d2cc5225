"""What a cut of a vocabulary changes, before anything is written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from model.text.tokenizer import Tokenizer
from model.vocabulary.cut import VocabularyCut
from model.vocabulary.samples import samples
from model.vocabulary.tokens import kind_of

_SPECIAL = "special tokens"


@dataclass(frozen=True)
class Change:
    """A number before and after."""

    before: int
    after: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's file, and those that are read for each token; 0 without weights."""

    file: int
    token: int


@dataclass(frozen=True)
class CutReport:
    """What a cut changes."""

    entries: Change
    scripts: dict[str, Change]  # entries by their script, the largest first
    file_bytes: Change
    token_bytes: Change
    languages: dict[str, Change]  # tokens that a sample text takes


def report_of(cut: VocabularyCut, before: Sizes, after: Sizes) -> CutReport:
    """Count entries by script, and the tokens of a sample text in each language."""
    kinds = list(_kinds(cut.former))
    every, kept = Counter(kinds), Counter(kinds[id_] for id_ in cut.ids)
    return CutReport(
        entries=Change(cut.former.size, len(cut.ids)),
        scripts={kind: Change(count, kept[kind]) for kind, count in every.most_common()},
        file_bytes=Change(before.file, after.file),
        token_bytes=Change(before.token, after.token),
        languages={
            sample.language: Change(
                _count(cut.former, sample.text), _count(cut.tokenizer, sample.text)
            )
            for sample in samples()
        },
    )


def _kinds(tokenizer: Tokenizer) -> Iterator[str]:
    for id_ in range(tokenizer.size):
        yield _SPECIAL if id_ in tokenizer.special else kind_of(tokenizer.bytes_of(id_))


def _count(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.spans(text, add_special_tokens=False).count
