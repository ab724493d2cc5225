"""The layers, and the directions in which they may import each other."""

from graphlib import TopologicalSorter

import pytest

from scripts.imports import PAGE, arrows, imports, modules, page, reached, room

# From the ground up: a room imports its own floor and those below it.
FLOORS = (
    {
        "config",
        "errors",
        "files",
        "hub_cache",
        "license",
        "limits",
        "names",
        "sampling",
        "version",
        "native",
    },
    {"text"},
    {"vocabulary"},
    {"checkpoint"},
    {"baked"},
    {"engine"},
    {"serving"},
    {"load", "evaluation", "calibration"},
)
MAY_READ_CHECKPOINTS = {
    "model.baked.bake",
    "model.baked.cache",
    "model.calibration.calibrate",
    "model.calibration.rounding",
    "model.load",
}


def floor(module: str) -> int:
    return next(at for at, rooms in enumerate(FLOORS) if module.split(".")[1] in rooms)


def of_package(*packages: str) -> list[str]:
    return sorted(name for name in modules() if name.startswith(packages))


def test_no_circle() -> None:
    list(TopologicalSorter(imports()).static_order())


def test_no_circle_of_folders() -> None:
    folders: dict[str, set[str]] = {}
    for start, end in arrows(modules(), room):
        folders.setdefault(start, set()).add(end)
    list(TopologicalSorter(folders).static_order())


def test_the_drawing_is_of_the_code_as_it_is() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make architecture`"


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
