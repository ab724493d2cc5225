"""Jinja for chat templates that somebody else wrote: set up as in `transformers`, and bounded.

Jinja's own sandbox keeps a template away from Python, but not from the machine's time and memory.
Here whatever a template does is paid from a budget before it is done: the turns of a loop, calls,
what operators and filters make, what is written. Whatever expands a value (printing, joining,
formatting, comparing) pays for the expanded size, so lists that hold each other many times cost
what they would print. Calls may be nested only so deep.
"""

# ruff: noqa: N802 (jinja2.visitor finds its methods by the names of nodes)

import json
import re
import threading
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.tests
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

SOURCE_CHARACTERS = 1 << 16  # that a template may have
BUDGET = 16 << 20  # bytes, or what takes as long, that a rendering may spend ...
BUDGET_EACH = 128  # ... and this much more for each byte of its input
NESTING = 64  # of calls, and of values within values
WIDEST = 10_000  # that a width or a count may be
PRECISION = 100  # digits that a number is rounded to
LONGEST_INTEGER = 1000  # bits: so many are calculated with as quickly as few
LARGEST_IN_RANGE = 1 << 53  # numbers further apart can all have one hash, so that a set is slow
PARTS = 16  # of the path of an attribute, which a filter follows for each value

_STEP = 64  # what a turn of a loop or a call costs
_MACRO = 256  # what a call of a macro costs
_LOOK = 32  # what a look at a value costs
_ENTRY = 64  # what a new entry of a list or dict costs


class LimitError(jinja2.TemplateError):
    """The template asked for more than it may have."""


class RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`: it refuses these messages."""


class _Meter(threading.local):
    """What is left of the budget of the rendering that this thread does."""

    left = 0
    depth = 0

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise LimitError("it takes more time or memory than a chat template may")

    def size(self, value: object, indent: int = 0) -> int:
        """Return the bytes of `value` written out, with `indent` at each level; a look costs."""
        if isinstance(value, str):
            return _bytes_of(value)
        total, level, depth = 0, [value], 0
        while level:
            self.spend(_LOOK * len(level))
            if depth > NESTING:
                raise LimitError(f"it nests values more than {NESTING} deep")
            total += (8 + indent * depth) * len(level)
            inner: list[Any] = []
            for each in level:
                if isinstance(each, str):
                    total += 4 * _bytes_of(each)  # some characters become an escape
                elif isinstance(each, int):
                    total += each.bit_length() // 3
                else:
                    parts = _parts(each)
                    total += 8 * len(parts)
                    if not isinstance(parts, range):
                        inner.extend(parts)
                        # Told here, before a level of millions is built.
                        if _LOOK * len(inner) > self.left:
                            self.spend(_LOOK * len(inner))
            if total > self.left:
                self.spend(total)
            level, depth = inner, depth + 1
        return total

    def made(self, value: Any) -> Any:
        """Pay for a new value; one that comes piece by piece is paid for as it comes."""
        if isinstance(value, str):
            self.spend(_bytes_of(value))
        elif isinstance(value, list | tuple | dict | Namespace):
            self.size(value)  # what would be too big to print is not even built
            self.spend(_ENTRY * (1 if isinstance(value, Namespace) else len(value)))
        elif isinstance(value, int):
            _check_integer(value.bit_length())
        elif isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self.counted(value)
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(_STEP)
            yield value


_meter = _Meter()


@contextmanager
def metered(input_bytes: int = 0) -> Iterator[None]:
    """Give what this thread compiles or renders within a budget of its own."""
    before = _meter.left, _meter.depth
    _meter.left, _meter.depth = BUDGET + BUDGET_EACH * input_bytes, 0
    try:
        yield
    finally:
        _meter.left, _meter.depth = before


def _parts(value: Any) -> Sequence[Any]:
    """Return what is written out where a value is; nothing for what is no collection."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Namespace):
        return [_attributes(value)]
    if isinstance(value, range | list | tuple):
        return value
    if isinstance(value, Set | ValuesView):
        return list(value)
    return ()


# What the compiled template calls in place of what Jinja does without a call.


def _iterated(values: Any) -> Any:
    if isinstance(values, Iterator):
        return _meter.counted(values)
    if hasattr(values, "__len__"):
        _meter.spend(_STEP * len(values))
    return values


def _concatenated(*values: Any) -> str:
    _meter.spend(sum(_meter.size(value) for value in values))
    return "".join(map(str, values))


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    return _meter.made(value[start:stop:step])


def _looked_up(key: Any) -> Any:
    _meter.spend(_STEP + _meter.size(key))
    return key


def _compared(value: Any) -> Any:
    _meter.spend(_meter.size(value) // 8)
    return value


def _built(value: Any) -> Any:
    return _meter.made(value)


def _written(value: Any) -> Any:
    _meter.spend(_meter.size(value))
    return value


_HOOKS: frozenset[object] = frozenset(
    {_iterated, _concatenated, _sliced, _looked_up, _compared, _built}
)


def _is_hook(called: object) -> bool:
    return called in _HOOKS


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja as `transformers` sets it up for chat templates, paid for from `metered`'s budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    iterated = staticmethod(_iterated)
    concatenated = staticmethod(_concatenated)
    sliced = staticmethod(_sliced)
    looked_up = staticmethod(_looked_up)
    compared = staticmethod(_compared)
    built = staticmethod(_built)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
            finalize=_written,
        )
        for name in _WITHOUT:
            self.filters.pop(name, None)
        self.filters["tojson"] = _tojson
        self.filters = {name: _priced_filter(name, each) for name, each in self.filters.items()}
        self.tests = {name: _priced_test(each) for name, each in self.tests.items()}
        self.globals.pop("lipsum")  # random text is no part of a prompt
        self.globals["range"] = _range
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Attributes

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join what was written, paying for it first."""
        kept = []
        for piece in pieces:
            _meter.spend(_bytes_of(piece) + 8)
            kept.append(piece)
        return "".join(kept)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _Priced(self).visit(source)
        return super()._generate(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do what an operator does, having paid for it."""
        _meter.spend(_STEP)
        if price := _OPERATORS.get(operator):
            price(left, right)
        return _meter.made(self.binop_table[operator](left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what the template calls, having paid for it."""
        _meter.spend(_STEP)
        if isinstance(called, FunctionType) and _is_hook(called):
            return called(*args)  # Jinja adds a loop's variables, by name, to every call
        args = tuple(_whole(each) for each in args)
        _price_call(called, args, kwargs)
        if _meter.depth >= NESTING:
            raise LimitError(f"it nests calls more than {NESTING} deep")
        _meter.depth += 1
        try:
            return _meter.made(super().call(context, called, *args, **kwargs))
        finally:
            _meter.depth -= 1


class _Priced(NodeTransformer):
    """Puts calls of the environment where a template would take time or memory without one."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def _hook(self, name: str, at: nodes.Node, *values: nodes.Node) -> nodes.Expr:
        place: dict[str, Any] = {"lineno": at.lineno, "environment": self._environment}
        function = nodes.EnvironmentAttribute(name, **place)
        return nodes.Call(function, list(values), [], None, None, **place)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._hook("iterated", node, node.iter)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        raise LimitError("it uses autoescape, which is not available")

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._hook("concatenated", node, *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        part = node.arg
        if not isinstance(part, nodes.Slice):
            if not isinstance(part, nodes.Const):
                node.arg = self._hook("looked_up", node, part)
            return node
        none = nodes.Const(None, lineno=node.lineno, environment=self._environment)
        ends = (part.start or none, part.stop or none, part.step or none)
        return self._hook("sliced", node, node.node, *ends)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int):
            _check_integer(node.value.bit_length())
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        sides: list[nodes.Expr] = [node.expr, *(each.expr for each in node.ops)]
        plain = any(isinstance(side, nodes.Const) for side in sides)
        if plain and len(sides) == 2 and node.ops[0].op not in ("in", "notin"):
            return node  # takes no longer than the shorter side
        if not isinstance(node.expr, nodes.Const):
            node.expr = self._hook("compared", node, node.expr)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Const):
                operand.expr = self._hook("compared", node, operand.expr)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._hook("built", node, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._hook("built", node, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._hook("built", node, node) if node.ctx == "load" else node


# Globals and tags, as `transformers` has them.


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, which marks the assistant's words for training: they stay as they are."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_words")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _words(self, caller: Macro) -> str:
        return caller()


class _Dict:
    """`dict` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Attributes(Namespace):
    """`namespace`, of which names that begin with an underscore are no part."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace has no attribute that begins with an underscore, such as {name}"
        )


def _attributes(namespace: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = object.__getattribute__(namespace, "_Namespace__attrs")
    return found


def _range(*ends: int) -> range:
    if any(isinstance(each, int) and abs(each) > LARGEST_IN_RANGE for each in ends):
        raise LimitError("it asks for a range of very large numbers")
    return jinja2.sandbox.safe_range(*ends)


def _raise_exception(message: str) -> None:
    raise RefusedError(message)


def _strftime_now(format: str) -> str:
    if len(format) > 1000:
        raise LimitError("it asks for a date in a format of more than 1,000 characters")
    _meter.spend(256 * len(format))  # as much as Python tries for, with a width such as %999c
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    each = len(indent) if isinstance(indent, str) else abs(indent or 0)
    between = sum(map(len, separators)) if separators else 2
    _meter.spend(_meter.size(value, each) * (1 + between // 8) + each + between)
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


# What things cost.


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def _whole(value: Any) -> Any:
    """Take what comes piece by piece as a list, so that its size can be seen."""
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        return list(_meter.counted(value))
    return value


def _check_numbers(values: Iterable[Any], most: int = WIDEST) -> None:
    for value in values:
        if isinstance(value, int | float) and abs(value) > most:
            raise LimitError(f"it asks for a width, count or precision of more than {most}")


def _price_product(left: Any, right: Any) -> None:
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            each = _bytes_of(many) if isinstance(many, str) else _ENTRY * len(many)
            return _meter.spend(each * max(0, times))
    if isinstance(left, int) and isinstance(right, int):
        _check_integer(left.bit_length() + right.bit_length())
    return None


def _price_sum(left: Any, right: Any) -> None:
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        _meter.spend(8 * (len(left) + len(right)))
    elif isinstance(left, str) and isinstance(right, str):
        _meter.spend(_bytes_of(left) + _bytes_of(right))


def _price_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_integer(left.bit_length() * abs(right))


def _check_integer(bits: int) -> None:
    if bits > LONGEST_INTEGER:
        raise LimitError("it calculates with numbers of thousands of digits")


def _price_percent(left: Any, right: Any) -> None:
    if isinstance(left, str):
        if re.search(r"%[^%a-zA-Z]*(\*|\d{5})", left):
            raise LimitError(f"it asks for a width or count of more than {WIDEST}")
        places = left.count("%")
        _meter.spend(_bytes_of(left) + places * (WIDEST * _is_wide(left) + _meter.size(right)))


def _is_wide(text: str) -> bool:
    return re.search(r"\d{2}", text) is not None


_OPERATORS: Mapping[str, Callable[[Any, Any], None]] = {
    "*": _price_product,
    "+": _price_sum,
    "**": _price_power,
    "%": _price_percent,
}


def _price_format(text: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    if re.search(r"\d{5}|[:!][^{}]*\{", text):
        raise LimitError(f"it formats with widths of more than {WIDEST}, or that are computed")
    each = _meter.size(values) + _meter.size(dict(named)) + WIDEST * _is_wide(text)
    _meter.spend(_bytes_of(text) + text.count("{") * each)


def _price_replaced(text: str, old: Any = None, new: Any = None) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _meter.spend(_bytes_of(text) + text.count(old) * _bytes_of(new))


def _price_call(called: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Pay for a call; refuse a method whose cost is not known."""
    kwargs = {name: each for name, each in kwargs.items() if name not in _ADDED}
    _meter.spend(8 * (len(args) + len(kwargs)))
    if isinstance(called, FunctionType) and hasattr(called, "__wrapped__"):
        called = called.__wrapped__  # str.format, as Jinja's sandbox wraps it
    if isinstance(called, Macro):
        return _meter.spend(_MACRO)
    if isinstance(called, LoopContext):
        _iterated(*args)
        return None
    size = sum(_meter.size(each) for each in (*args, *kwargs.values()))
    _meter.spend(size // 8)
    if not isinstance(called, BuiltinMethodType | MethodType):
        return None
    owner, name = called.__self__, called.__name__
    if name in ("to_bytes", "from_bytes", "maketrans"):
        raise LimitError(f"it calls {name}, which is not available")
    if isinstance(owner, str):
        return _price_text_method(owner, name, args, kwargs, size)
    return _meter.spend(8 * len(owner) if hasattr(owner, "__len__") else 0)


def _price_text_method(
    text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], size: int
) -> None:
    """Pay for a method of a text, whose arguments have `size` bytes."""
    match name:
        case "encode" | "translate" | "format_map" | "striptags":
            raise LimitError(f"it calls {name}, which is not available")
        case "format":
            _price_format(text, args, kwargs)
        case "join":
            parts = args[0] if args else ()
            between = len(parts) if hasattr(parts, "__len__") else 0
            _meter.spend(size + between * _bytes_of(text))
        case "replace":
            _price_replaced(text, *(*args, *kwargs.values())[:2])
        case "split" if args and isinstance(args[0], str) and args[0]:
            _meter.spend(_bytes_of(text) + _ENTRY * text.count(args[0]))
        case "split" | "rsplit" | "splitlines":
            _meter.spend(_bytes_of(text) + _ENTRY * len(text) // 2)
        case _ if name in _PADDING:
            _check_numbers((*args, *kwargs.values()))
            _meter.spend(_bytes_of(text) + WIDEST * (text.count("\t") + 1))
        case _:
            _meter.spend(_bytes_of(text))
    if name in _QUADRATIC:
        _meter.spend(_bytes_of(text) * size // 32)


# Each character is looked for among the argument's, or the argument at each of them.
_QUADRATIC = {"strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit", "rpartition"}
_ADDED = ("_loop_vars", "_block_vars")  # by Jinja
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs"}
# Filters that no chat needs, and whose time grows faster than what they are given.
_WITHOUT = ("urlize", "pprint", "wordwrap", "xmlattr", "striptags")
_CONSTANT = {"default", "d", "length", "count", "first", "last", "random", "attr", "abs", "float"}
_CONSTANT |= {"int", "filesizeformat", "map", "select", "reject", "selectattr", "rejectattr"}
_CONSTANT |= {"tojson", "items", "safe"}  # tojson pays for itself
_NUMBERED = {"center", "indent", "batch", "slice", "truncate", "round"}
_BY_PATH = {"selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max"}
_SORTING = {"sort", "groupby", "unique", "dictsort", "min", "max"}
_ESCAPING = {"e", "escape", "forceescape", "urlencode"}


def _priced_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    skipped = hasattr(function, "jinja_pass_arg")  # the context comes before the value

    @wraps(function)
    def priced(*args: Any, **kwargs: Any) -> Any:
        _meter.spend(_STEP)
        first = args[:skipped]
        value, *rest = args[skipped:]
        _check_path(name, rest, kwargs)
        if name in ("int", "float", "filesizeformat") and isinstance(value, str):
            _meter.spend(_bytes_of(value))
        elif name == "attr":
            rest = [_looked_up(each) for each in rest]
        if name not in _CONSTANT:
            value = _whole(value)
            rest = [_whole(each) for each in rest]
            _price_filter(name, value, rest, kwargs)
        return _meter.made(function(*first, value, *rest, **kwargs))

    return priced


def _check_path(name: str, rest: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a path that takes long to follow, from a filter that follows it for each value."""
    paths = [*rest, *kwargs.values()] if name in _BY_PATH else [kwargs.get("attribute")]
    for path in paths:
        if isinstance(path, str) and path.count(".") + path.count(",") >= PARTS:
            raise LimitError(f"it looks for an attribute by a path of more than {PARTS} parts")


def _price_filter(name: str, value: Any, rest: list[Any], kwargs: Mapping[str, Any]) -> None:
    numbers = [*rest, *kwargs.values()]
    if name in _NUMBERED:
        _check_numbers(numbers, PRECISION if name == "round" else WIDEST)
    size = _meter.size(value)
    match name:
        case "center" | "batch" | "slice" | "truncate":
            size += _ENTRY * max((each for each in numbers if isinstance(each, int)), default=80)
        case "indent":
            width = max((_width(each) for each in numbers), default=4)
            size += (str(value).count("\n") + 1) * width
        case "replace" if len(rest) >= 2:
            _price_replaced(str(value), *map(str, rest[:2]))
        case "join":
            between = _meter.size(numbers[0]) if numbers else 0
            size += between * (len(value) if hasattr(value, "__len__") else 1)
        case "format":
            _price_percent(str(value), tuple(rest) or dict(kwargs))
        case "sum":
            if any(isinstance(each, list | tuple | str) for each in numbers[-1:]) and not (
                isinstance(numbers[-1], str) and len(numbers) == 1
            ):
                raise LimitError("it sums lists, which is not available")
        case "list" | "reverse":
            size += _ENTRY * len(value) if hasattr(value, "__len__") else 0
        case "wordcount" | "title":  # each word becomes a value
            size *= 32
        case "trim" if numbers:
            size += size * _meter.size(numbers[0]) // 32
        case _ if name in _SORTING:
            size *= 4
        case _ if name in _ESCAPING:
            size *= 6
    _meter.spend(size)


def _width(value: Any) -> int:
    return value if isinstance(value, int) else len(value) if isinstance(value, str) else 0


def _priced_test(function: Any) -> Callable[..., Any]:
    cheap = function in _CHEAP_TESTS

    @wraps(function)
    def priced(*args: Any, **kwargs: Any) -> Any:
        _meter.spend(_STEP)
        if not cheap:
            args = tuple(_whole(each) for each in args)
            _meter.spend(sum(_meter.size(each) for each in args) // 8)
        return function(*args, **kwargs)

    return priced


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
