"""Other programs' variables are removed."""

import os

import pytest

from common import environment
from tests.foreign import EVERYTHING


def test_what_is_not_its_own_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PIBLOOM_MODEL": "/m", "PATH": "/bin", "LC_ALL": "C", "OMP_NUM_THREADS": "2"}
    kept |= {"HOME": "/root", "PORT": "80", "HF_HOME": "/hub", "PYTHONPATH": "."}
    given = {**EVERYTHING, **kept}
    monkeypatch.setattr(os, "environ", given)
    environment.remove_others(environment.ENGINE_FAMILIES)
    assert given.items() >= kept.items()
    left = {name for name in given if not name.startswith("PIBLOOM_")} - kept.keys()
    assert left <= {"HOST", "LANG", "TMPDIR", "XDG_STATE_HOME"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "HF_HOME", "TORCH_LOGS"])
def test_what_an_engine_reads_is_kept_only_where_there_is_one(name: str) -> None:
    assert environment.is_kept(name, environment.ENGINE_FAMILIES)
    assert not environment.is_kept(name)
