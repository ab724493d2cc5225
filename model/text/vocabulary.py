"""A checkpoint's `tokenizer.json`, compiled to the bytes that the native tokenizer works on."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.errors import ModelError
from model.files import read_object
from model.text.added_tokens import (
    LONGEST,
    AddedToken,
    AddedTokens,
)
from model.text.byte_symbols import SYMBOL_OF, bytes_of_symbols
from model.text.compiled import (
    IS_SPECIAL,
    LSTRIP,
    NEVER,
    RSTRIP,
    SINGLE_WORD,
    VERSION,
    AddedEntry,
    TokenizerHeader,
    hash_table,
    joined,
)
from model.text.post_processor import offset_trimming, tokens_around
from model.text.tokenizer_settings import TokenizerSettings, read_settings

# Ids 0-3 in every BLOOM. Only the end may be generated.
UNKNOWN, BEGIN, END, PADDING = range(4)
SPECIAL = {"<unk>": UNKNOWN, "<s>": BEGIN, "</s>": END, "<pad>": PADDING}

_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # the C knows this one
_MOST_IDS = 1 << 24


def compile_vocabulary(folder: Path) -> bytes:
    """Read a folder's tokenizer; `ModelError` when it is missing, damaged or not BLOOM's kind."""
    path = folder / "tokenizer.json"
    try:
        data = read_object(path)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; a checkpoint folder needs its tokenizer") from None
    settings = read_settings(folder, data)
    try:
        return compile_json(data, settings)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(f"{path} cannot be read: it is not a tokenizer ({error!r:.120})") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def compile_json(data: Mapping[str, Any], settings: TokenizerSettings | None = None) -> bytes:
    """Compile a parsed `tokenizer.json` with the settings of the other files.

    `ModelError` when it is not of BLOOM's kind; other errors when fields are missing or wrong.
    """
    settings = settings or TokenizerSettings([], {})
    _check_kind(data)
    vocab: dict[str, int] = data["model"]["vocab"]
    added = AddedTokens(vocab)
    added.add([_own_token(token) for token in data["added_tokens"]])
    added.add(settings.to_add)
    texts = _texts(vocab, added)
    _check_special_tokens(vocab, added)
    singles = [vocab[symbol] for _, symbol in sorted(SYMBOL_OF.items()) if symbol in vocab]
    if len(singles) < 256:
        raise ModelError("expected a byte-level tokenizer, as BLOOM's is: it lacks some bytes")
    before, after = tokens_around(data.get("post_processor"), len(texts))
    merges = _merges(data["model"]["merges"], vocab)
    buckets = hash_table(merges)
    starts, blob = array("I", [0]), bytearray()
    for text in texts:
        blob += text
        starts.append(len(blob))
    first = list(_table(added, added.found(normalized=False), settings, blob))
    second = list(_table(added, added.found(normalized=True), settings, blob))
    header = TokenizerHeader(
        magic=b"BTOK",
        version=VERSION,
        size=len(texts),
        merges=len(merges) // 3,
        buckets=len(buckets),
        added=len(first),
        normalized=len(second),
        before=len(before),
        after=len(after),
        trim=offset_trimming(data.get("post_processor")),
        bytes_size=len(blob),
    )
    header.single[:] = singles
    return joined(
        header,
        starts_at=starts.tobytes(),
        bytes_at=bytes(blob),
        merges_at=merges.tobytes(),
        buckets_at=buckets.tobytes(),
        added_at=b"".join(map(bytes, first + second)),
        around_at=array("I", before + after).tobytes(),
    )


def _check_special_tokens(vocab: Mapping[str, int], added: AddedTokens) -> None:
    found = {text: added.ids.get(text, vocab.get(text)) for text in SPECIAL}
    if found != SPECIAL:
        raise ModelError(f"expected BLOOM's special tokens {SPECIAL}, found {found}")


def _merges(pairs: Sequence[Any], vocab: Mapping[str, int]) -> "array[int]":
    """Return three ids for each merge: the left token, the right one, and what they become."""
    merges = array("I")
    for pair in pairs:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        merges.extend((vocab[left], vocab[right], vocab[left + right]))
    return merges


def _own_token(token: Mapping[str, Any]) -> AddedToken:
    """Read an added token of `tokenizer.json`, where every field is required."""
    for name in ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"):
        if name not in token:
            raise ModelError(f"the added token {token.get('content')!r:.80} lacks {name}")
    return AddedToken.parse(token)


def _texts(vocab: Mapping[str, int], added: AddedTokens) -> list[bytes]:
    """Return each id's text."""
    names = {id_: symbols for symbols, id_ in vocab.items()}
    if len(names) < len(vocab):
        raise ModelError("two entries of its vocabulary have the same id")
    names |= {id_: token.content for id_, token in added.tokens.items()}
    if not all(type(id_) is int and 0 <= id_ < _MOST_IDS for id_ in names):
        raise ModelError(f"its ids must be whole numbers from 0 to {_MOST_IDS - 1}")
    missing = next((id_ for id_ in range(len(names)) if id_ not in names), None)
    if missing is not None:
        raise ModelError(f"its ids leave some out: no token has the id {missing}")
    return [bytes_of_symbols(names[id_]) for id_ in range(len(names))]


def _table(
    added: AddedTokens, contents: set[str], settings: TokenizerSettings, blob: bytearray
) -> Iterator[AddedEntry]:
    """Yield entries for contents, sorted by their bytes, and append the texts to `blob`."""
    blank_first = any(content[0].isspace() for content in added.ids)
    for text, content in sorted((content.encode(), content) for content in contents):
        token = added.tokens[added.ids[content]]
        special = content in added.special
        if len(text) > LONGEST:
            raise ModelError(f"an added token has {len(text)} bytes, and {LONGEST} is the most")
        if token.rstrip and blank_first:
            raise ModelError(
                f"the added token {content!r} has rstrip, and another one begins with white space,"
                " which is not supported together"
            )
        flags = (
            IS_SPECIAL * special
            | SINGLE_WORD * token.single_word
            | LSTRIP * token.lstrip
            | RSTRIP * token.rstrip
            | NEVER * (special and settings.split_special_tokens)
        )
        yield AddedEntry(added.ids[content], flags, len(blob), len(text))
        blob += text


def _check_kind(data: Mapping[str, Any]) -> None:
    """Refuse settings with which text would be split or joined in another way than the C does."""
    _expect("model type", "BPE", data["model"].get("type", "BPE"))
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if found := data["model"].get(name):
            raise ModelError(f"the model's {name} {found!r:.80} is not supported")
    if data["model"].get("ignore_merges"):
        raise ModelError("the model's ignore_merges is not supported")
    if data.get("normalizer") is not None:
        kind = data["normalizer"].get("type")
        raise ModelError(f"the normalizer {kind!r:.80} is not supported; BLOOM has none")
    _expect("decoder", "ByteLevel", (data.get("decoder") or {}).get("type"))
    splitter = data.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", [splitter])
    kinds = [step.get("type") for step in steps]
    if kinds != ["Split", "ByteLevel"]:
        raise ModelError(f"the pre_tokenizer {kinds!r:.120} is not supported; BLOOM's is {_KINDS}")
    split, byte_level = steps
    _expect("pre_tokenizer's pattern", {"Regex": _PATTERN}, split["pattern"])
    _expect("pre_tokenizer's behavior", "Isolated", split["behavior"])
    _expect("pre_tokenizer's invert", False, split["invert"])
    _expect("pre_tokenizer's add_prefix_space", False, byte_level["add_prefix_space"])
    _expect("pre_tokenizer's use_regex", False, byte_level.get("use_regex", True))


_KINDS = ["Split", "ByteLevel"]


def _expect(what: str, wanted: object, found: object) -> None:
    if found != wanted:
        raise ModelError(f"the {what} {found!r:.120} is not supported; BLOOM's is {wanted!r}")
