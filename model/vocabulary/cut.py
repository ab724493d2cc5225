"""A vocabulary cut to what its user needs: which entries are kept, and the tokenizer of them.

Always kept are all 256 bytes, so that any text can still be written, special and added tokens, and
the merges on the way to whatever is kept. Merges keep their order, so a text whose tokens are all
kept gets the same ones: byte-pair encoding applies the merge of the lowest rank next; each that it
applied is still there, and none is new.
"""

import codecs
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model.errors import ModelError
from model.text.compiled import AddedEntry, TokenizerHeader, hash_table, joined
from model.text.tokenizer import Tokenizer
from model.vocabulary.tokens import KeptScripts, has_letter

_BLOCK = 1 << 20  # bytes of a text that are read at a time
# Between these two characters a token always ends: a word, and what begins anew.
_BETWEEN = re.compile(r"(?<=\w)(?= \w|[\n.,!?。，、])")


@dataclass(frozen=True)
class VocabularyCut:
    """The entries that are kept: an entry's new id is its place among them."""

    former: Tokenizer
    ids: tuple[int, ...]  # the former ids, in order
    named: tuple[str, ...]  # what the user asked for: scripts, and names of texts

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer with these entries only."""
        return Tokenizer.from_bytes(_only(self.former.compiled, self.ids))

    @cached_property
    def new_ids(self) -> dict[int, int]:
        """The new id of each former one that is kept."""
        return {former: new for new, former in enumerate(self.ids)}


def cut_vocabulary(
    tokenizer: Tokenizer,
    *,
    scripts: Sequence[str] = (),
    texts: Sequence[Path] = (),
    always: Iterable[int] = (),
) -> VocabularyCut:
    """Keep the tokens of some scripts, by their Unicode names, and those that occur in some texts.

    `always`: further ids to keep, such as those that end a reply; others than the vocabulary's are
    passed over. `ModelError` when nothing with a letter is asked for, or a text is not UTF-8.
    """
    wanted: set[int] = set()
    if scripts:
        kept = KeptScripts(scripts)
        wanted |= {id_ for id_ in range(tokenizer.size) if kept.hold(tokenizer.bytes_of(id_))}
    for path in texts:
        for part in _parts(path):
            wanted |= set(tokenizer.ids(part, add_special_tokens=False))
    _check_letters(tokenizer, wanted, scripts, texts)
    compiled = tokenizer.compiled
    header = TokenizerHeader.from_buffer_copy(compiled)
    added = [entry.id for entry in _added(header, compiled)]
    around = _numbers(compiled, header.around_at, header.before + header.after)
    wanted |= {*header.single, *added, *around}
    wanted |= {id_ for id_ in always if 0 <= id_ < tokenizer.size}
    ids = _with_their_way(wanted, _merges(header, compiled))
    names = (*scripts, *(path.name for path in texts))
    return VocabularyCut(tokenizer, tuple(sorted(ids)), names)


def _check_letters(
    tokenizer: Tokenizer, wanted: Collection[int], scripts: Sequence[str], texts: Sequence[Path]
) -> None:
    if any(has_letter(tokenizer.bytes_of(id_)) for id_ in wanted):
        return
    asked = [*(f"the script {name}" for name in scripts), *map(str, texts)]
    raise ModelError(
        f"nothing would be kept but bytes and signs: no entry of the vocabulary holds a letter of"
        f" {' or '.join(asked)}"
    )


def _parts(path: Path) -> Iterator[str]:
    """Yield a text in parts that end where a token does."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                rest += decoder.decode(block)
                ends = [
                    found.start() for found in _BETWEEN.finditer(rest, max(len(rest) - 4096, 0))
                ]
                if ends:
                    yield rest[: ends[-1]]
                    rest = rest[ends[-1] :]
            yield rest + decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


def _with_their_way(wanted: Collection[int], merges: "array[int]") -> set[int]:
    """Return the tokens, and all those that any of them is merged of.

    What a token is merged of depends on nothing but its bytes: no pair that reaches beyond them was
    merged, or the token would not be there, and of the pairs within them the same one is next.
    """
    ways: dict[int, list[int]] = {}
    for left, right, result in zip(merges[::3], merges[1::3], merges[2::3], strict=True):
        ways.setdefault(result, []).extend((left, right))
    found, ahead = set[int](), list(wanted)
    while ahead:
        id_ = ahead.pop()
        if id_ not in found:
            found.add(id_)
            ahead += ways.get(id_, ())
    return found


def _only(compiled: bytes, ids: Sequence[int]) -> bytes:
    """Return a compiled tokenizer with some of its entries, each by its place among `ids`."""
    former = TokenizerHeader.from_buffer_copy(compiled)
    new = {id_: place for place, id_ in enumerate(ids)}
    starts = _numbers(compiled, former.starts_at, former.size + 1)
    data = memoryview(compiled)[former.bytes_at : former.bytes_at + former.bytes_size]
    lengths, blob = array("I", [0]), bytearray()
    for id_ in ids:
        blob += data[starts[id_] : starts[id_ + 1]]
        lengths.append(len(blob))
    added = []
    for entry in _added(former, compiled):
        place = len(blob)
        blob += data[entry.text_at : entry.text_at + entry.text_size]
        added.append(AddedEntry(new[entry.id], entry.flags, place, entry.text_size))
    merges, before = array("I"), _merges(former, compiled)
    for merge in zip(before[::3], before[1::3], before[2::3], strict=True):
        if all(id_ in new for id_ in merge):
            merges.extend(new[id_] for id_ in merge)
    buckets = hash_table(merges)
    around = _numbers(compiled, former.around_at, former.before + former.after)
    header = TokenizerHeader.from_buffer_copy(former)
    header.size, header.merges, header.buckets = len(ids), len(merges) // 3, len(buckets)
    header.bytes_size = len(blob)
    header.single[:] = [new[id_] for id_ in former.single]
    return joined(
        header,
        starts_at=lengths.tobytes(),
        bytes_at=bytes(blob),
        merges_at=merges.tobytes(),
        buckets_at=buckets.tobytes(),
        added_at=b"".join(map(bytes, added)),
        around_at=array("I", [new[id_] for id_ in around]).tobytes(),
    )


def _numbers(compiled: bytes, at: int, count: int) -> "array[int]":
    numbers = array("I")
    numbers.frombytes(compiled[at : at + 4 * count])
    return numbers


def _merges(header: TokenizerHeader, compiled: bytes) -> "array[int]":
    """Return three ids for each merge, by its rank: the left token, the right one, the result."""
    return _numbers(compiled, header.merges_at, 3 * header.merges)


def _added(header: TokenizerHeader, compiled: bytes) -> list[AddedEntry]:
    count = header.added + header.normalized
    entries = (AddedEntry * count).from_buffer_copy(compiled, header.added_at)
    return list(entries)
