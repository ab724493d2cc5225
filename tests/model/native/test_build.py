"""How the library is built: every source is shipped and compiled, and no two need each other."""

import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from model.baked import cache
from model.native import build as building
from model.native.build import FOLDER, compile_commands

ROOT = Path(__file__).parents[3]
SOURCES = sorted(FOLDER.rglob("*.[ch]"))


def included(source: Path) -> set[Path]:
    """Return the files of the library that a file includes."""
    names = re.findall(r'^#include "(.+)"', source.read_text(encoding="utf-8"), re.MULTILINE)
    found = set()
    for name in names:
        beside, within = source.parent / name, FOLDER / name
        found.add(beside if beside.exists() else within)
    assert all(path.exists() for path in found)
    return found


def reached(source: Path) -> set[Path]:
    """Return a file, what it includes, what that includes, and so on."""
    found: set[Path] = set()
    ahead = [source]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found.add(path)
            ahead += included(path)
    return found


def test_no_two_modules_need_each_other() -> None:
    """A module is a source and its header, such as head.c and head.h."""
    needed: dict[Path, set[Path]] = {}
    for source in SOURCES:
        module = source.with_suffix("")
        others = {path.with_suffix("") for path in included(source)} - {module}
        needed.setdefault(module, set()).update(others)
    list(TopologicalSorter(needed).static_order())


def test_the_package_holds_every_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["model.native"]
    shipped = {path for pattern in patterns for path in FOLDER.glob(pattern)}
    assert shipped >= set(SOURCES)


@pytest.mark.parametrize("machine", ["x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_each_machine_compiles_its_own_kernels(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_run", lambda command: machine)
    compiled = {source.name for source in compile_commands(["cc"])}
    own = {
        "x86_64": {"avx2.c", "avx512.c"},
        "aarch64": {"neon.c", "dotprod.c"},
        "riscv64": set(),
    }
    everywhere = {source.name for source in SOURCES if source.suffix == ".c"}
    everywhere -= set().union(*own.values())
    assert compiled == everywhere | own[machine.partition("-")[0]]


def test_a_source_that_changes_what_is_baked_changes_the_names_of_the_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a newer piBLOOM would serve what an older one baked."""
    read = set[Path]()
    original = Path.read_bytes

    def noting(path: Path) -> bytes:
        read.add(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    cache._baker.__wrapped__()
    assert read >= reached(FOLDER / "pack.c")
