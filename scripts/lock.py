"""Write every lock file in requirements/: the version of each package, the hash of each file.

.venv/bin/python -m scripts.lock            # keep the locked versions that are still allowed
.venv/bin/python -m scripts.lock --upgrade  # choose the newest versions

The hashes make two fresh machines install the same bytes, wherever they fetch them from. The first
line of a lock names the requirements it was made of; tests/test_locks.py compares them with
pyproject.toml.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
# What each lock is made of: an extra of pyproject.toml, or a file of names. A package that two
# locks share has the version of the first of them.
LOCKS = {
    "up.txt": "hub",
    "test-fast.txt": "test-fast",
    "test.txt": "test",
    "images/functions.txt": "images/functions.in",
    "images/ui.txt": "images/ui.in",
}


def project() -> dict[str, list[str]]:
    """Return the requirements of pyproject.toml: those of each extra, and those of all under ""."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


def requirements(source: str | None) -> list[str]:
    """Return what a lock is made of, one requirement of pyproject.toml each, sorted."""
    wanted = project()
    if source is not None and source.endswith(".in"):
        lines = (REQUIREMENTS / source).read_text(encoding="utf-8").splitlines()
        names = {line for line in lines if line and not line.startswith("#")}
        return sorted(each for each in wanted[""] if Requirement(each).name in names)
    found, extras = set(wanted[""]), [source] if source else []
    for extra in extras:
        for each in wanted[extra]:
            if each.startswith("pibloom["):
                extras += each.removeprefix("pibloom[").removesuffix("]").split(",")
            else:
                found.add(each)
    return sorted(found)


def header(source: str | None) -> str:
    """Return the first line of a lock."""
    return f"# Written by `make lock` for: {', '.join(requirements(source))}"


def lock(name: str, source: str | None, arguments: list[str]) -> None:
    """Write one lock."""
    path = REQUIREMENTS / name
    constraint = [] if name == "up.txt" else ["--constraint", str(REQUIREMENTS / "up.txt")]
    if name == "test.txt":
        constraint += ["--constraint", str(REQUIREMENTS / "test-fast.txt")]
    subprocess.run(
        [
            *(ROOT / ".venv/bin/uv", "pip", "compile", "-", "--output-file", path, "--quiet"),
            *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *constraint,
            *arguments,
        ],
        input="\n".join(requirements(source)),
        text=True,
        check=True,
        cwd=ROOT,
    )
    path.write_text(f"{header(source)}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Write all locks."""
    if arguments not in ([], ["--upgrade"]):
        sys.exit(__doc__)
    for name, source in LOCKS.items():
        lock(name, source, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
