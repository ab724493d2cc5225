"""What operators, calls, filters and tests of a chat template cost, charged before they run."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.tests
from jinja2.runtime import LoopContext, Macro

from model.text.template_budget import (
    ENTRY,
    MACRO,
    PARTS,
    PRECISION,
    STEP,
    WIDEST,
    LimitError,
    bytes_of,
    check_integer,
    meter,
)


def iterated(values: Any) -> Any:
    """Charge for the turns of a loop over the values, and return them."""
    if isinstance(values, Iterator):
        return meter.counted(values)
    if hasattr(values, "__len__"):
        meter.spend(STEP * len(values))
    return values


def looked_up(key: Any) -> Any:
    """Charge for looking a key up, and return it."""
    meter.spend(STEP + meter.size(key))
    return key


def as_list(value: Any) -> Any:
    """Return an iterator's values as a list, whose size can be seen; others as they are."""
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        return list(meter.counted(value))
    return value


def _check_numbers(values: Iterable[Any], most: int = WIDEST) -> None:
    for value in values:
        if isinstance(value, int | float) and abs(value) > most:
            raise LimitError(f"it asks for a width, count or precision of more than {most}")


def _charge_product(left: Any, right: Any) -> None:
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            each = bytes_of(many) if isinstance(many, str) else ENTRY * len(many)
            return meter.spend(each * max(0, times))
    if isinstance(left, int) and isinstance(right, int):
        check_integer(left.bit_length() + right.bit_length())
    return None


def _charge_sum(left: Any, right: Any) -> None:
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.spend(8 * (len(left) + len(right)))
    elif isinstance(left, str) and isinstance(right, str):
        meter.spend(bytes_of(left) + bytes_of(right))


def _charge_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        check_integer(left.bit_length() * abs(right))


def _charge_percent(left: Any, right: Any) -> None:
    if isinstance(left, str):
        if re.search(r"%[^%a-zA-Z]*(\*|\d{5})", left):
            raise LimitError(f"it asks for a width or count of more than {WIDEST}")
        places = left.count("%")
        meter.spend(bytes_of(left) + places * (WIDEST * _is_wide(left) + meter.size(right)))


def _is_wide(text: str) -> bool:
    return re.search(r"\d{2}", text) is not None


OPERATORS: Mapping[str, Callable[[Any, Any], None]] = {
    "*": _charge_product,
    "+": _charge_sum,
    "**": _charge_power,
    "%": _charge_percent,
}


def _charge_format(text: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    if re.search(r"\d{5}|[:!][^{}]*\{", text):
        raise LimitError(f"it formats with widths of more than {WIDEST}, or that are computed")
    each = meter.size(values) + meter.size(dict(named)) + WIDEST * _is_wide(text)
    meter.spend(bytes_of(text) + text.count("{") * each)


def _charge_replaced(text: str, old: Any = None, new: Any = None) -> None:
    if isinstance(old, str) and isinstance(new, str):
        meter.spend(bytes_of(text) + text.count(old) * bytes_of(new))


def charge_call(called: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Charge for a call; `LimitError` for a method whose cost is not known."""
    kwargs = {name: each for name, each in kwargs.items() if name not in _ADDED}
    meter.spend(8 * (len(args) + len(kwargs)))
    if isinstance(called, FunctionType) and hasattr(called, "__wrapped__"):
        called = called.__wrapped__  # str.format, as Jinja's sandbox wraps it
    if isinstance(called, Macro):
        return meter.spend(MACRO)
    if isinstance(called, LoopContext):
        iterated(*args)
        return None
    size = sum(meter.size(each) for each in (*args, *kwargs.values()))
    meter.spend(size // 8)
    if not isinstance(called, BuiltinMethodType | MethodType):
        return None
    owner, name = called.__self__, called.__name__
    if name in ("to_bytes", "from_bytes", "maketrans"):
        raise LimitError(f"it calls {name}, which is not available")
    if isinstance(owner, str):
        return _charge_text_method(owner, name, args, kwargs, size)
    return meter.spend(8 * len(owner) if hasattr(owner, "__len__") else 0)


def _charge_text_method(
    text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], size: int
) -> None:
    """Charge for a method of a text, whose arguments have `size` bytes."""
    match name:
        case "encode" | "translate" | "format_map" | "striptags":
            raise LimitError(f"it calls {name}, which is not available")
        case "format":
            _charge_format(text, args, kwargs)
        case "join":
            parts = args[0] if args else ()
            between = len(parts) if hasattr(parts, "__len__") else 0
            meter.spend(size + between * bytes_of(text))
        case "replace":
            _charge_replaced(text, *(*args, *kwargs.values())[:2])
        case "split" if args and isinstance(args[0], str) and args[0]:
            meter.spend(bytes_of(text) + ENTRY * text.count(args[0]))
        case "split" | "rsplit" | "splitlines":
            meter.spend(bytes_of(text) + ENTRY * len(text) // 2)
        case _ if name in _PADDING:
            _check_numbers((*args, *kwargs.values()))
            meter.spend(bytes_of(text) + WIDEST * (text.count("\t") + 1))
        case _:
            meter.spend(bytes_of(text))
    if name in _QUADRATIC:
        meter.spend(bytes_of(text) * size // 32)


# Each character is looked for among the argument's, or the argument at each of them.
_QUADRATIC = {"strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit", "rpartition"}
_ADDED = ("_loop_vars", "_block_vars")  # by Jinja
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs"}
# Filters that no chat needs, and whose time grows faster than what they are given.
REMOVED_FILTERS = ("urlize", "pprint", "wordwrap", "xmlattr", "striptags")
_CONSTANT = {"default", "d", "length", "count", "first", "last", "random", "attr", "abs", "float"}
_CONSTANT |= {"int", "filesizeformat", "map", "select", "reject", "selectattr", "rejectattr"}
_CONSTANT |= {"tojson", "items", "safe"}  # tojson pays for itself
_NUMBERED = {"center", "indent", "batch", "slice", "truncate", "round"}
_BY_PATH = {"selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max"}
_SORTING = {"sort", "groupby", "unique", "dictsort", "min", "max"}
_ESCAPING = {"e", "escape", "forceescape", "urlencode"}


def charged_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that charges for its work before it does it."""
    skipped = hasattr(function, "jinja_pass_arg")  # the context comes before the value

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        meter.spend(STEP)
        first = args[:skipped]
        value, *rest = args[skipped:]
        _check_path(name, rest, kwargs)
        if name in ("int", "float", "filesizeformat") and isinstance(value, str):
            meter.spend(bytes_of(value))
        elif name == "attr":
            rest = [looked_up(each) for each in rest]
        if name not in _CONSTANT:
            value = as_list(value)
            rest = [as_list(each) for each in rest]
            _charge_filter(name, value, rest, kwargs)
        return meter.made(function(*first, value, *rest, **kwargs))

    return charged


def _check_path(name: str, rest: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a path that takes long to follow, from a filter that follows it for each value."""
    paths = [*rest, *kwargs.values()] if name in _BY_PATH else [kwargs.get("attribute")]
    for path in paths:
        if isinstance(path, str) and path.count(".") + path.count(",") >= PARTS:
            raise LimitError(f"it looks for an attribute by a path of more than {PARTS} parts")


def _charge_filter(name: str, value: Any, rest: list[Any], kwargs: Mapping[str, Any]) -> None:
    numbers = [*rest, *kwargs.values()]
    if name in _NUMBERED:
        _check_numbers(numbers, PRECISION if name == "round" else WIDEST)
    size = meter.size(value)
    match name:
        case "center" | "batch" | "slice" | "truncate":
            size += ENTRY * max((each for each in numbers if isinstance(each, int)), default=80)
        case "indent":
            width = max((_width(each) for each in numbers), default=4)
            size += (str(value).count("\n") + 1) * width
        case "replace" if len(rest) >= 2:
            _charge_replaced(str(value), *map(str, rest[:2]))
        case "join":
            between = meter.size(numbers[0]) if numbers else 0
            size += between * (len(value) if hasattr(value, "__len__") else 1)
        case "format":
            _charge_percent(str(value), tuple(rest) or dict(kwargs))
        case "sum":
            if any(isinstance(each, list | tuple | str) for each in numbers[-1:]) and not (
                isinstance(numbers[-1], str) and len(numbers) == 1
            ):
                raise LimitError("it sums lists, which is not available")
        case "list" | "reverse":
            size += ENTRY * len(value) if hasattr(value, "__len__") else 0
        case "wordcount" | "title":  # each word becomes a value
            size *= 32
        case "trim" if numbers:
            size += size * meter.size(numbers[0]) // 32
        case _ if name in _SORTING:
            size *= 4
        case _ if name in _ESCAPING:
            size *= 6
    meter.spend(size)


def _width(value: Any) -> int:
    return value if isinstance(value, int) else len(value) if isinstance(value, str) else 0


def charged_test(function: Any) -> Callable[..., Any]:
    """Return a test that charges for its work before it does it."""
    cheap = function in _CHEAP_TESTS

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        meter.spend(STEP)
        if not cheap:
            args = tuple(as_list(each) for each in args)
            meter.spend(sum(meter.size(each) for each in args) // 8)
        return function(*args, **kwargs)

    return charged


_CHEAP_TESTS = {
    each
    for name, each in jinja2.tests.TESTS.items()
    if name
    in (
        *("defined", "undefined", "none", "boolean", "true", "false", "integer", "float"),
        *("number", "string", "mapping", "sequence", "iterable", "callable", "sameas"),
        *("odd", "even", "filter", "test", "escaped"),
    )
}
