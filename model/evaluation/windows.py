"""The sliding window: which tokens of a long text the model sees at once, and which are scored.

As https://huggingface.co/docs/transformers/perplexity does it: each window begins `stride` tokens
after the one before, and only the tokens that no window before it held are scored. So every token
is scored once, with at least `size - stride` tokens before it where the text has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `end - 1` of a text, of which those from `first` on are scored."""

    start: int
    end: int
    first: int


def windows(tokens: int, size: int, stride: int) -> Iterator[Window]:
    """Yield the windows over a text of `tokens` tokens.

    A window's own first token has nothing before it and is not scored: of the whole text the first
    token, and where `stride` is `size`, so that no windows overlap, that of each window.
    """
    if not 0 < stride <= size:
        raise ValueError(f"a stride of {stride} does not fit a window of {size} tokens")
    scored = 0
    for start in range(0, tokens, stride):
        end = min(start + size, tokens)
        yield Window(start, end, max(scored, start + 1))
        scored = end
        if end == tokens:
            return
