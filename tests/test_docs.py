"""The documentation names what there is: files, headings, targets of make, attributes."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from scripts.imports import modules
from tests.documented_forms import rows

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for folder in (
        ".",
        "docs",
        "docs/decisions",
        "model/demo",
        "bench/results",
        ".github",
        ".github/ISSUE_TEMPLATE",
    )
    for path in (ROOT / folder).glob("*.md" if folder != "model/demo" else "**/*.md")
)
FOLDERS = "bench|cli|common|docs|functions|knative|model|requirements|scripts|tests|ui"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./*-]*")
every_page = pytest.mark.parametrize("page", PAGES, ids=str)


def text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_blocks(page: Path) -> str:
    """Return a page without what stands in blocks of code."""
    return re.sub(r"^(```.*?^```$|    .*?$)", "", text(page), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what a link may name within a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@cache
def attributes() -> dict[str, set[str]]:
    """Return what each class of the project names within its body, by the class's name."""
    found: dict[str, set[str]] = {}
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                inside = list(ast.walk(node))
                names = {each.attr for each in inside if isinstance(each, ast.Attribute)}
                names |= {each.name for each in inside if isinstance(each, ast.FunctionDef)}
                found.setdefault(node.name, set()).update(names)
    return found


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page.parent / name) if name else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT)), target


@every_page
def test_paths_exist(page: Path) -> None:
    for words in re.findall(r"`([^`\n]+)`", text(page)):
        for path in words.split():
            if PATH.fullmatch(path) and "/mine/" not in path:  # what a reader makes
                assert list(ROOT.glob(path.rstrip("/"))), path


@every_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text(Path("Makefile")), re.MULTILINE))
    commands = re.findall(r"(?:`|^    |&& )make ([a-z0-9-]+)", text(page), re.MULTILINE)
    assert set(commands) <= targets


@every_page
def test_attributes_exist(page: Path) -> None:
    for name, attribute in re.findall(r"`([A-Z]\w+)\.(_?[a-z]\w*)`", text(page)):
        if name in attributes():
            assert attribute in attributes()[name], f"{name}.{attribute}"


def test_the_tests_that_the_faults_name_exist() -> None:
    """In the last column, without `test_` in front; `…` stands for the rest of a name."""
    files = (ROOT / "tests").rglob("test_*.py")
    found = re.findall(
        r"def test_(\w+)", "\n".join(path.read_text(encoding="utf-8") for path in files)
    )
    rows = [line for line in text(Path("docs/faults.md")).splitlines() if line.startswith("| ")]
    named = [
        name
        for row in rows
        for name in re.findall(r"`([a-z]\w+…?)[`\[]", row.rstrip("| ").rpartition("|")[2])
    ]
    assert len(named) > 80
    for name in named:
        known = [each for each in found if each == name]
        if name.endswith("…"):
            known = [each for each in found if each.startswith(name[:-1])]
        assert known, name


def test_each_form_of_a_model_has_a_test() -> None:
    """And its row says that it is served, or with which sentence it is refused."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(rows()) > 40
    for row in rows():
        assert row.outcome.startswith(("served", "refused: `")), row.form
        assert row.tests, row.form
        for test in row.tests:
            name, _, case = test.rstrip("]").partition("[")
            source = next((each for each in sources if f"def test_{name}(" in each), "")
            assert source, test
            assert not case or f'"{case}"' in source, test


def test_the_sentences_of_refused_forms_are_in_the_code() -> None:
    """Up to what stands for `…`; those with examples in them are tested with their forms."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    for row in rows():
        if any(test.startswith("a_form_is_refused[") for test in row.tests):
            continue
        if row.outcome.startswith("refused"):
            for sentence in re.findall(r"`([^`]+)`", row.outcome):
                for part in filter(None, sentence.split("…")):
                    assert part in joined, sentence


def test_every_page_is_tested() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {Path(name) for name in listed.stdout.split()} <= set(PAGES)
