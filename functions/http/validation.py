"""What is wrong with a body, in a sentence that is made from the type that its route takes.

msgspec finds the fault; of its message only the place is read. That keeps its wording, which may
change with any release, out of the API, and values, which its messages quote, out of answers.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from functions.errors import InvalidField
from functions.http.quoting import describe, shortened

_UNKNOWN = "unknown_parameter"  # OpenAI's code for a field that the type does not have

# The JSON types, in the order in which a sentence lists them.
_WORDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("true or false", inspect.BoolType),
    ("a whole number", inspect.IntType),
    ("a number", inspect.FloatType),
    ("a text", inspect.StrType),
    ("a list", inspect.ListType),
    ("an object", (inspect.DictType, inspect.StructType)),
)
ANY_KEY = "[...]"  # in a place: some value of an object with free keys
_LOCATION = re.compile(r" - at `\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\[(?:(\d+)|\.\.\.)\]|\.([^.\[]+)")  # [0], [...] (of any key), or .name


def invalid_field(error: msgspec.ValidationError, body: object, type_: object) -> InvalidField:
    """Say which field of a body is wrong, what it must be, and what kind of value was given."""
    found = _LOCATION.search(str(error))
    path = found[1] if found else ""
    try:
        value, kinds = _follow(path, body, _kinds(type_))
    except (LookupError, TypeError, AttributeError):  # msgspec writes places otherwise by now
        return InvalidField("the body is not as /openapi.json describes it", param=None)
    field = path.removeprefix(".")
    objects = [each for each in kinds if isinstance(each, inspect.StructType)]
    if isinstance(value, dict) and objects and (wrong := _wrong_field(field, value, objects)):
        return wrong
    if all(isinstance(each, inspect.NoneType) for each in kinds):  # known, but only as null
        name = shortened(field or "body")
        sentence = f"the field {name} is not supported"
        return InvalidField(sentence, param=name, code="unsupported_parameter")
    where = f"{shortened(field)}: " if field else ""
    sentence = f"{where}Expected {_expected(value, kinds)}"
    if ANY_KEY in field:  # the key is the client's own, so neither it nor its value is repeated
        return InvalidField(sentence, param=shortened(field.partition(ANY_KEY)[0]))
    param = shortened(field) if field else None
    return InvalidField(f"{sentence}, but got {describe(value)}", param=param)


def is_of_unknown_field(error: msgspec.ValidationError, body: object, type_: object) -> bool:
    """Whether a body is wrong because it has a field that its type does not have."""
    return invalid_field(error, body, type_).openai_code == _UNKNOWN


def without_unknown_nulls(body: object, type_: object) -> object:
    """Leave out fields that are null and not known, in a body and in all objects within it."""
    return _without_unknown_nulls(body, _kinds(type_))


def _follow(path: str, value: Any, kinds: list[inspect.Type]) -> tuple[object, list[inspect.Type]]:
    """Follow a path such as `.messages[0].role` into a body, and into its type."""
    for index, name in _STEP.findall(path):
        if name:
            value, kinds = value[name], _fields(kinds)[name]
        elif index:
            value, kinds = value[int(index)], _items(kinds)
        else:  # a value of an object whose keys are free
            kinds = _values(kinds)
            values = value.values()
            value = next((each for each in values if not _accepts(each, kinds)), None)
    return value, kinds


def _wrong_field(
    path: str, value: dict[str, Any], objects: list[inspect.StructType]
) -> InvalidField | None:
    """Say which field of an object is not known, or else which one is missing."""
    fields = [field for each in objects for field in each.fields]
    known = {field.encode_name for field in fields}
    unknown = [name for name in value if name not in known]
    if unknown and any(each.forbid_unknown_fields for each in objects):
        name, problem, code = unknown[0], "is not known here", _UNKNOWN
    else:
        missing = [
            field.encode_name
            for field in fields
            if field.required and field.encode_name not in value
        ]
        if not missing:
            return None
        name, problem, code = missing[0], "is missing", "missing_required_parameter"
    param = shortened(f"{path}.{name}" if path else name)
    return InvalidField(f"the field {param} {problem}", param=param, code=code)


def _expected(value: object, kinds: list[inspect.Type]) -> str:
    """Say in words what a value must be."""
    for kind in kinds:
        if _is_of_type(value, kind):
            if isinstance(kind, inspect.LiteralType):
                return " or ".join(map(repr, kind.values))
            if bound := _broken_bound(value, kind):
                return f"{_word(kind)} {bound}"
    words = {_word(kind) for kind in kinds}
    return " or ".join(word for word, _ in _WORDS if word in words)


def _word(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return "a text" if isinstance(kind.values[0], str) else "a whole number"
    return next((word for word, types in _WORDS if isinstance(kind, types)), "")


def _is_of_type(value: object, kind: inspect.Type) -> bool:
    """Whether a value has the JSON type of a kind, in whatever range."""
    match kind:
        case inspect.AnyType():
            return True
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.LiteralType():
            return type(value) in {type(each) for each in kind.values}
        case inspect.ListType():
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _accepts(value: object, kinds: list[inspect.Type]) -> bool:
    """Whether a value that holds no others is of one of these kinds, and within its bounds."""
    return any(_is_of_type(value, kind) and not _broken_bound(value, kind) for kind in kinds)


def _broken_bound(value: Any, kind: inspect.Type) -> str:
    """Return the bound that a value of this kind is outside of, such as `>= 1`, or nothing."""
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        shown = float if isinstance(kind, inspect.FloatType) else int
        for sign, bound, broken in (
            (">=", kind.ge, kind.ge is not None and value < kind.ge),
            (">", kind.gt, kind.gt is not None and value <= kind.gt),
            ("<=", kind.le, kind.le is not None and value > kind.le),
            ("<", kind.lt, kind.lt is not None and value >= kind.lt),
        ):
            if broken and bound is not None:
                return f"{sign} {shown(bound)}"
    if isinstance(kind, inspect.StrType | inspect.ListType | inspect.DictType):
        if kind.min_length is not None and len(value) < kind.min_length:
            return f"of length >= {kind.min_length}"
        if kind.max_length is not None and len(value) > kind.max_length:
            return f"of length <= {kind.max_length}"
    return ""


def _without_unknown_nulls(value: Any, kinds: list[inspect.Type]) -> Any:
    if isinstance(value, list) and (inner := _items(kinds)):
        return [_without_unknown_nulls(each, inner) for each in value]
    if isinstance(value, dict) and (fields := _fields(kinds)):
        return {
            name: _without_unknown_nulls(each, fields.get(name, []))
            for name, each in value.items()
            if each is not None or name in fields
        }
    return value


def _kinds(type_: object) -> list[inspect.Type]:
    """Return the kinds of value that a type is a union of; just itself for most types."""
    return list(_united(inspect.type_info(type_)))


def _united(type_: inspect.Type) -> Iterator[inspect.Type]:
    match type_:
        case inspect.UnionType():
            for each in type_.types:
                yield from _united(each)
        case inspect.Metadata():
            yield from _united(type_.type)
        case _:
            yield type_


def _items(kinds: list[inspect.Type]) -> list[inspect.Type]:
    """Return the kinds of the items of those that are lists."""
    lists = [each for each in kinds if isinstance(each, inspect.ListType)]
    return [kind for each in lists for kind in _united(each.item_type)]


def _values(kinds: list[inspect.Type]) -> list[inspect.Type]:
    """Return the kinds of the values of those that are objects with free keys."""
    dicts = [each for each in kinds if isinstance(each, inspect.DictType)]
    return [kind for each in dicts for kind in _united(each.value_type)]


def _fields(kinds: list[inspect.Type]) -> dict[str, list[inspect.Type]]:
    """Return the kinds of each field of those that are objects with known fields."""
    objects = [each for each in kinds if isinstance(each, inspect.StructType)]
    fields = [field for each in objects for field in each.fields]
    return {field.encode_name: list(_united(field.type)) for field in fields}
