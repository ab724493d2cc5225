"""The lock files say what pyproject.toml asks for. `make lock` writes them again."""

import ast
import re
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import lock
from tests.conftest import SLOW_PACKAGES

ROOT = Path(__file__).parents[1]
every_lock = pytest.mark.parametrize("name", lock.LOCKS)


def text(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Return the version of each package in a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.+\])?==([^ ]+)", text(name), re.MULTILINE))


def test_every_lock_is_written_by_make_lock() -> None:
    folder = ROOT / "requirements"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.txt")} == set(lock.LOCKS)


@every_lock
def test_a_lock_was_made_of_what_pyproject_asks_for(name: str) -> None:
    first, _ = text(name).split("\n", 1)
    assert first == lock.header(lock.LOCKS[name]), "run `make lock`"


@every_lock
def test_each_version_is_one_that_pyproject_allows(name: str) -> None:
    pinned = pins(name)
    for each in map(Requirement, lock.requirements(lock.LOCKS[name])):
        assert each.specifier.contains(pinned[each.name.lower()]), each


@every_lock
def test_two_locks_have_the_same_version_of_a_package(name: str) -> None:
    everything = pins("test.txt")
    for package, version in pins(name).items():
        assert everything[package] == version


@every_lock
def test_a_lock_names_no_registry_and_has_hashes_of_every_file(name: str) -> None:
    packages = re.split(r"^(?=[a-z0-9])", text(name), flags=re.MULTILINE)[1:]
    assert "://" not in text(name)
    assert len(packages) > 5
    assert all("--hash=sha256:" in package for package in packages)


@pytest.mark.parametrize("source", ["images/functions.in", "images/ui.in"])
def test_an_image_has_packages_that_pyproject_names(source: str) -> None:
    lines = (ROOT / "requirements" / source).read_text(encoding="utf-8").splitlines()
    names = {line for line in lines if not line.startswith("#")}
    assert names == {Requirement(each).name for each in lock.requirements(source)}


def test_what_tests_import_is_in_the_fast_lock_or_skipped() -> None:
    installed, of = pins("test-fast.txt"), packages_distributions()
    imported = set[str]()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    packages = imported & of.keys() - {path.name for path in ROOT.iterdir()}
    missing = {
        name
        for name in packages
        if not installed.keys() & {canonicalize_name(each) for each in of[name]}
    }
    assert missing <= SLOW_PACKAGES
