"""The rooms of the house, and the directions in which they may import each other."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "model", "functions", "ui", "cli")
# From the ground up: a room imports its own floor and those below it.
FLOORS = (
    {"config", "errors", "files", "limits", "names", "sampling", "native"},
    {"text"},
    {"checkpoint"},
    {"baked"},
    {"engine"},
    {"serving"},
    {"load"},
)
MAY_READ_CHECKPOINTS = {"model.baked.bake", "model.baked.cache", "model.load"}


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


def reached(start: str) -> set[str]:
    """Return what a module imports, and what that imports, and so on."""
    found, ahead = set(), [start]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += imports()[module]
    return found


def floor(module: str) -> int:
    return next(at for at, rooms in enumerate(FLOORS) if module.split(".")[1] in rooms)


def of_package(*packages: str) -> list[str]:
    return sorted(name for name in modules() if name.startswith(packages))


def test_no_circle() -> None:
    list(TopologicalSorter(imports()).static_order())


@pytest.mark.parametrize("module", of_package("model."))
def test_the_model_imports_downwards_only(module: str) -> None:
    if module.startswith("model.demo"):
        return  # training may use everything
    own = {each for each in imports()[module] if each.startswith("model.")}
    assert all(floor(each) <= floor(module) for each in own), own
    assert not imports()[module] - own - {"model"}
    if any(each.startswith("model.checkpoint") for each in own):
        assert module in MAY_READ_CHECKPOINTS or module.startswith("model.checkpoint")


def test_tokenization_reaches_no_engine() -> None:
    wrong = {
        name
        for name in reached("functions.tokenize.main")
        if name.startswith(("model.serving", "model.engine", "model.checkpoint", "model.load"))
    }
    assert not wrong


@pytest.mark.parametrize("module", of_package("ui"))
def test_the_chat_knows_the_functions_by_http_only(module: str) -> None:
    assert not {each for each in reached(module) if each.startswith(("model", "functions", "cli"))}


@pytest.mark.parametrize("module", of_package("functions"))
def test_functions_know_neither_the_chat_nor_the_commands(module: str) -> None:
    assert not {each for each in reached(module) if each.startswith(("ui", "cli"))}


@pytest.mark.parametrize("module", of_package("common"))
def test_what_is_common_knows_nothing_else(module: str) -> None:
    assert not {each for each in reached(module) if not each.startswith("common")}
