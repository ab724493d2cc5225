"""The tokens that a checkpoint adds to its vocabulary, and the id that each one gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import ModelError

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
LONGEST = 4096  # bytes of an added token
MOST = 1 << 16  # added tokens


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text as it is written, and the conditions for that."""

    content: str
    single_word: bool = False  # only where no letter, digit or mark touches it
    lstrip: bool = False  # includes the white space before it
    rstrip: bool = False  # includes the white space after it
    normalized: bool = False  # looked for in what the other added tokens leave of a text
    special: bool = False  # left out when ids become text

    @classmethod
    def parse(cls, value: Mapping[str, Any], **given: bool) -> "AddedToken":
        """Read a token as JSON has it; `ModelError` when it is none."""
        if not isinstance(value, Mapping):
            raise ModelError(f"an added token is a table with its content, not {value!r:.80}")
        content = value.get("content")
        flags = {name: value[name] for name in _FLAGS if name in value} | given
        if not isinstance(content, str) or not all(
            isinstance(each, bool) for each in flags.values()
        ):
            raise ModelError(f"an added token has a content and flags, which {value!r:.80} has not")
        return cls(content, **{"normalized": not flags.get("special", False)} | flags)


@dataclass
class AddedTokens:
    """Added tokens with their ids, as the library `tokenizers` keeps them."""

    vocab: Mapping[str, int]  # of the BPE itself
    ids: dict[str, int] = field(default_factory=dict)
    tokens: dict[int, AddedToken] = field(default_factory=dict)  # as they were added last
    special: set[str] = field(default_factory=set)  # contents that were special at any time
    last: int = -1  # the greatest id of an added token

    def add(self, tokens: list[AddedToken]) -> None:
        """Add tokens; one that is known already keeps its id and gets the new flags."""
        for token in tokens:
            if not token.content:
                continue
            if token.special:
                self.special.add(token.content)
            id_ = self.ids.get(token.content, self.vocab.get(token.content))
            if id_ is None:
                id_ = max(len(self.vocab), self.last + 1)
            self.last = max(self.last, id_)
            self.ids[token.content] = id_
            self.tokens[id_] = token
        if len(self.ids) > MOST:
            raise ModelError(f"more than {MOST} tokens are added to its vocabulary")

    def found(self, *, normalized: bool) -> set[str]:
        """Return the contents that are looked for in a text.

        Those with `normalized` are looked for in what the others leave of it.
        """
        return {token.content for token in self.tokens.values() if token.normalized == normalized}
