"""scripts/setup.sh says in one sentence what is wrong, and does nothing twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the script looks at, without an environment."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def setup(project: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script with some programs replaced by shell scripts."""
    fakes = project / "fakes"
    fakes.mkdir(exist_ok=True)
    for name, script in programs.items():
        (fakes / name).write_text(f"#!/bin/sh\n{script}\n")
        (fakes / name).chmod(0o755)
    return subprocess.run(
        ["bash", str(project / "scripts" / "setup.sh"), "up"],
        env={"PATH": f"{fakes}:/usr/bin:/bin", "HOME": str(project), "TMPDIR": str(project)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python_of(version: str) -> str:
    return f'case "$*" in *version_info*) exit 1;; *) echo "Python {version}";; esac'


MODERN = f'exec {sys.executable} "$@"'
OLD = {f"python3{suffix}": python_of("3.9.2") for suffix in ("", ".11", ".12", ".13")}
NO_APT = {"apt-get": "exit 100", "apt-cache": "exit 100", "sudo": "exit 1", "id": "echo 1000"}


def test_an_old_python_is_one_sentence(project: Path) -> None:
    done = setup(project, OLD | NO_APT)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "3.11" in done.stderr
    assert "3.9.2" in done.stderr


def test_a_full_disk_is_one_sentence(project: Path) -> None:
    df = 'printf "h\\nfs 100 99 524288 99%% /\\n"'
    done = setup(project, {"python3": MODERN, "df": df})
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "0 GB are free" in done.stderr


def test_an_interrupted_installation_is_not_taken_for_a_whole_one(project: Path) -> None:
    pip = 'case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0;; esac\n'
    pip += 'case "$*" in *"pip install"*) echo Connection refused; exit 1;; esac\n' + MODERN
    for _ in range(2):
        done = setup(project, {"python3": pip})
        assert done.returncode != 0
        assert "check the network" in done.stderr
        assert not list((project / ".venv").glob("installed-*"))


def test_a_second_run_does_nothing(project: Path) -> None:
    pip = 'case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0;; esac\n'
    pip += 'case "$*" in *"pip install"*) echo installed >>.venv/calls; exit 0;; esac\n' + MODERN
    for _ in range(3):
        assert setup(project, {"python3": pip}).returncode == 0
    assert (project / ".venv" / "calls").read_text().count("installed") == 2  # packages, project
    (project / "requirements" / "up.txt").open("a").write("# another version\n")
    assert setup(project, {"python3": pip}).returncode == 0
    assert (project / ".venv" / "calls").read_text().count("installed") == 4


def test_shell_scripts_are_clean() -> None:
    for script in [*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert os.access(script, os.X_OK)
        assert "set -euo pipefail" in script.read_text()
