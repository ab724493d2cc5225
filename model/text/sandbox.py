"""Jinja for chat templates that somebody else wrote: set up as in `transformers`, and bounded.

Jinja's own sandbox keeps a template away from Python, but not from the machine's time and memory.
Here whatever a template does is charged to a budget before it is done: the turns of a loop, calls,
what operators and filters make, what is written. Whatever expands a value (printing, joining,
formatting, comparing) is charged for the expanded size, so lists that hold each other many times
cost what they would print. The depth of calls is limited.
"""

# ruff: noqa: N802 (jinja2.visitor finds its methods by the names of nodes)

from collections.abc import Iterable
from types import FunctionType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import jinja2.tests
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from model.text.template_budget import (
    NESTING,
    STEP,
    LimitError,
    bytes_of,
    check_integer,
    meter,
)
from model.text.template_builtins import (
    Dict,
    Generation,
    SafeNamespace,
    bounded_range,
    raise_exception,
    strftime_now,
    tojson,
)
from model.text.template_costs import (
    OPERATORS,
    REMOVED_FILTERS,
    as_list,
    charge_call,
    charged_filter,
    charged_test,
    iterated,
    looked_up,
)

# The compiled template calls these functions for what Jinja itself does without a call.


def _concatenated(*values: Any) -> str:
    meter.spend(sum(meter.size(value) for value in values))
    return "".join(map(str, values))


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    return meter.made(value[start:stop:step])


def _compared(value: Any) -> Any:
    meter.spend(meter.size(value) // 8)
    return value


def _built(value: Any) -> Any:
    return meter.made(value)


def _written(value: Any) -> Any:
    meter.spend(meter.size(value))
    return value


_HOOKS: frozenset[object] = frozenset(
    {iterated, _concatenated, _sliced, looked_up, _compared, _built}
)


def _is_hook(called: object) -> bool:
    return called in _HOOKS


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja as `transformers` sets it up for chat templates, charged to the budget of `metered`."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    iterated = staticmethod(iterated)
    concatenated = staticmethod(_concatenated)
    sliced = staticmethod(_sliced)
    looked_up = staticmethod(looked_up)
    compared = staticmethod(_compared)
    built = staticmethod(_built)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, jinja2.ext.loopcontrols],
            finalize=_written,
        )
        for name in REMOVED_FILTERS:
            self.filters.pop(name, None)
        self.filters["tojson"] = tojson
        self.filters = {name: charged_filter(name, each) for name, each in self.filters.items()}
        self.tests = {name: charged_test(each) for name, each in self.tests.items()}
        self.globals.pop("lipsum")  # random text has no place in a prompt
        self.globals["range"] = bounded_range
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now
        self.globals["dict"] = Dict()
        self.globals["namespace"] = SafeNamespace

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join what was written, once it is charged for."""
        kept = []
        for piece in pieces:
            meter.spend(bytes_of(piece) + 8)
            kept.append(piece)
        return "".join(kept)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _ChargedNodes(self).visit(source)
        return super()._generate(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do what an operator does, once it is charged for."""
        meter.spend(STEP)
        if charge := OPERATORS.get(operator):
            charge(left, right)
        return meter.made(self.binop_table[operator](left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what the template calls, once it is charged for."""
        meter.spend(STEP)
        if isinstance(called, FunctionType) and _is_hook(called):
            return called(*args)  # Jinja adds a loop's variables, by name, to every call
        args = tuple(as_list(each) for each in args)
        charge_call(called, args, kwargs)
        if meter.depth >= NESTING:
            raise LimitError(f"it nests calls more than {NESTING} deep")
        meter.depth += 1
        try:
            return meter.made(super().call(context, called, *args, **kwargs))
        finally:
            meter.depth -= 1


class _ChargedNodes(NodeTransformer):
    """Replaces parts of a template that take time or memory by calls of the environment."""

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
            check_integer(node.value.bit_length())
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
