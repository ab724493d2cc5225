"""The globals, tags and filters of chat templates, as `transformers` has them."""

import json
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.tests
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.utils import Namespace

from model.text.template_budget import (
    LARGEST_IN_RANGE,
    LimitError,
    meter,
)


class RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`: it refuses these messages."""


class Generation(jinja2.ext.Extension):
    """`{% generation %}`, which marks the assistant's words for training: they stay as they are."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the node that calls `_words` with the body of the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_words")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _words(self, caller: Macro) -> str:
        return caller()


class Dict:
    """`dict` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Make a dictionary, as the class does."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Make a dictionary of keys with one value, as the class does."""
        return dict.fromkeys(*args, **kwargs)


class SafeNamespace(Namespace):
    """`namespace`, without names that begin with an underscore."""

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


def bounded_range(*ends: int) -> range:
    """Return `range(*ends)`, unless it is too long or its numbers are too large."""
    if any(isinstance(each, int) and abs(each) > LARGEST_IN_RANGE for each in ends):
        raise LimitError("it asks for a range of very large numbers")
    return jinja2.sandbox.safe_range(*ends)


def raise_exception(message: str) -> None:
    """Let a template refuse the messages that it is rendered with."""
    raise RefusedError(message)


def strftime_now(format: str) -> str:
    """Return the local date and time, in a format of `datetime.strftime`."""
    if len(format) > 1000:
        raise LimitError("it asks for a date in a format of more than 1,000 characters")
    meter.spend(256 * len(format))  # as much as Python tries for, with a width such as %999c
    return datetime.now().strftime(format)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON, without escapes for HTML, unlike Jinja's own filter."""
    each = len(indent) if isinstance(indent, str) else abs(indent or 0)
    between = sum(map(len, separators)) if separators else 2
    meter.spend(meter.size(value, each) * (1 + between // 8) + each + between)
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
