"""What a chat template may spend: the budget of a rendering, and the limits on single values."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from contextlib import contextmanager
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.tests
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

SOURCE_CHARACTERS = 1 << 16  # that a template may have
BUDGET = 16 << 20  # bytes, or what takes as long, that a rendering may spend ...
BUDGET_EACH = 128  # ... and this much more for each byte of its input
NESTING = 64  # of calls, and of values within values
WIDEST = 10_000  # that a width or a count may be
PRECISION = 100  # digits that a number is rounded to
LONGEST_INTEGER = 1000  # bits: so many are calculated with as quickly as few
LARGEST_IN_RANGE = 1 << 53  # numbers further apart can all have one hash, so that a set is slow
PARTS = 16  # of the path of an attribute, which a filter follows for each value

STEP = 64  # what a turn of a loop or a call costs
MACRO = 256  # what a call of a macro costs
LOOK = 32  # what a look at a value costs
ENTRY = 64  # what a new entry of a list or dict costs


class LimitError(jinja2.TemplateError):
    """The template asked for more than it may have."""


class Meter(threading.local):
    """The budget of the compilation or rendering that this thread does; see `metered`."""

    left = 0
    depth = 0

    def spend(self, amount: int) -> None:
        """Take `amount` bytes from the budget; `LimitError` when it has fewer."""
        self.left -= amount
        if self.left < 0:
            raise LimitError("it takes more time or memory than a chat template may")

    def size(self, value: object, indent: int = 0) -> int:
        """Return the bytes of `value` written out, with `indent` spaces more at each level.

        Looking at each part of the value is charged. `LimitError` when it is nested too deeply.
        """
        if isinstance(value, str):
            return bytes_of(value)
        total, level, depth = 0, [value], 0
        while level:
            self.spend(LOOK * len(level))
            if depth > NESTING:
                raise LimitError(f"it nests values more than {NESTING} deep")
            total += (8 + indent * depth) * len(level)
            inner: list[Any] = []
            for each in level:
                if isinstance(each, str):
                    total += 4 * bytes_of(each)  # some characters become an escape
                elif isinstance(each, int):
                    total += each.bit_length() // 3
                else:
                    parts = _parts(each)
                    total += 8 * len(parts)
                    if not isinstance(parts, range):
                        inner.extend(parts)
                        # Charged here, before a level of millions is built.
                        if LOOK * len(inner) > self.left:
                            self.spend(LOOK * len(inner))
            if total > self.left:
                self.spend(total)
            level, depth = inner, depth + 1
        return total

    def made(self, value: Any) -> Any:
        """Charge for a new value and return it; an iterator is charged for as it advances."""
        if isinstance(value, str):
            self.spend(bytes_of(value))
        elif isinstance(value, list | tuple | dict | Namespace):
            self.size(value)  # what would be too big to print is not even built
            self.spend(ENTRY * (1 if isinstance(value, Namespace) else len(value)))
        elif isinstance(value, int):
            check_integer(value.bit_length())
        elif isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self.counted(value)
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the values, each charged as a step."""
        for value in values:
            self.spend(STEP)
            yield value


meter = Meter()


@contextmanager
def metered(input_bytes: int = 0) -> Iterator[None]:
    """Let this thread compile or render a template with a budget of its own.

    `input_bytes` are those of the messages that it is rendered with.
    """
    before = meter.left, meter.depth
    meter.left, meter.depth = BUDGET + BUDGET_EACH * input_bytes, 0
    try:
        yield
    finally:
        meter.left, meter.depth = before


def _parts(value: Any) -> Sequence[Any]:
    """Return what is written out for a collection; nothing for any other value."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Namespace):
        return [attributes_of(value)]
    if isinstance(value, range | list | tuple):
        return value
    if isinstance(value, Set | ValuesView):
        return list(value)
    return ()


def attributes_of(namespace: Namespace) -> dict[str, Any]:
    """Return what a template has stored in a namespace."""
    found: dict[str, Any] = object.__getattribute__(namespace, "_Namespace__attrs")
    return found


def bytes_of(text: str) -> int:
    """Return an upper bound of the bytes that a text takes in UTF-8 and in memory."""
    return len(text) if text.isascii() else 4 * len(text)


def check_integer(bits: int) -> None:
    """Refuse a whole number of so many bits when calculating with it would take long."""
    if bits > LONGEST_INTEGER:
        raise LimitError("it calculates with numbers of thousands of digits")
