"""The table of forms in docs/models.md, by the tests that its rows name."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@dataclass(frozen=True)
class Row:
    """A form, and what comes out of it."""

    form: str
    outcome: str  # "served …" or "refused: `sentence`"
    tests: tuple[str, ...]  # names without `test_`, with the case in brackets where there is one


def rows() -> list[Row]:
    """Return the rows of the table below the heading "Forms"."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Forms\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Row(form, outcome, tuple(re.findall(r"`([^`]+)`", tests)))
        for form, outcome, tests in cells[1:]
        if not form.startswith("**")
    ]


TABLE = {test: row for row in rows() for test in row.tests}
