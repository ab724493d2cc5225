"""Which values an element of the chat's pages can have."""

import math
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.openable_element import OpenableElement
from nicegui.elements.mixins.value_element import ValueElement

from ui.limits import MESSAGE_CHARACTERS

MAX_DIGITS = 32


def value_fits(element: ValueElement[Any], value: object) -> bool:
    """Tell whether an element can have this value."""
    if isinstance(element, OpenableElement):
        return isinstance(value, bool)
    if isinstance(element, ui.number | ui.slider):
        return value is None or _is_number(value)
    if isinstance(element, ui.input):
        return value is None or (isinstance(value, str) and len(value) <= MESSAGE_CHARACTERS)
    return False


def _is_number(value: object) -> bool:
    """Tell whether this is a finite number, or the text of one: a field sends either."""
    if isinstance(value, str) and len(value) <= MAX_DIGITS:
        try:
            return not value or math.isfinite(float(value))
        except ValueError:
            return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]
