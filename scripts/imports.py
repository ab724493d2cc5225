"""Which modules of the project import each other, and the drawing of it in docs/architecture.md.

.venv/bin/python -m scripts.imports               # draw it again; `make architecture`
.venv/bin/python -m scripts.imports functions/    # print a drawing of one folder's modules
"""

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "model", "functions", "ui", "cli")
PAGE = ROOT / "docs" / "architecture.md"


@cache
def modules() -> dict[str, Path]:
    """Return every module's file, by the module's name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Return which modules of the project each one imports, wherever in it the import stands."""
    known = modules()

    def of(path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path} has a relative import"
                for name in node.names:
                    whole = f"{node.module}.{name.name}"
                    yield whole if whole in known else node.module

    return {module: known.keys() & set(of(path)) - {module} for module, path in known.items()}


@cache
def reached(start: str) -> set[str]:
    """Return a module, what it imports, what that imports, and so on."""
    found, ahead = set[str](), [start]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += imports()[module]
    return found


def room(module: str) -> str:
    """Return the box that a module is drawn in: its folder, or itself if it uses folders below.

    Such a module composes what the folders hold, while the modules beside it are what all use.
    """
    path, of = modules()[module], modules()
    below = any(path.parent in of[each].parents[1:] for each in imports()[module])
    place = path if below else path.parent
    return f"{place.relative_to(ROOT)}{'' if below else '/'}"


def arrows(inside: Collection[str], box: Callable[[str], str]) -> set[tuple[str, str]]:
    """Return which boxes of modules import which."""
    pairs = {(box(start), box(end)) for start in inside for end in imports()[start] & set(inside)}
    return {(start, end) for start, end in pairs if start != end}


def mermaid(boxes: Collection[str], between: Collection[tuple[str, str]]) -> str:
    """Return a drawing as Mermaid's text."""
    number = {box: f"n{at}" for at, box in enumerate(sorted(boxes))}
    lines = [f'    {number[box]}["{box}"]' for box in sorted(boxes)]
    lines += [f"    {number[start]} --> {number[end]}" for start, end in sorted(between)]
    return "\n".join(["flowchart TD", *lines])


def of_rooms() -> str:
    """Return the drawing of the whole house."""
    every = [module for module, path in modules().items() if path.name != "__init__.py"]
    return mermaid({room(module) for module in every}, arrows(every, room))


def of_modules(folder: str) -> str:
    """Return the drawing of the modules of one folder and of those below it."""
    found = [
        module
        for module, path in modules().items()
        if path.is_relative_to(ROOT / folder) and path.name != "__init__.py"
    ]
    return mermaid(found, arrows(found, str))


def page() -> str:
    """Return docs/architecture.md with the drawing as it is now."""
    place = re.compile(r"(<!-- drawn by `make architecture` -->\n).*?(<!-- end -->)", re.DOTALL)
    drawing = f"```mermaid\n{of_rooms()}\n```\n"
    text, count = place.subn(rf"\1{drawing}\2", PAGE.read_text(encoding="utf-8"))
    assert count == 1, f"{PAGE} has no place for the drawing"
    return text


if __name__ == "__main__":
    if sys.argv[1:]:
        print(of_modules(sys.argv[1]))
    else:
        PAGE.write_text(page(), encoding="utf-8")
