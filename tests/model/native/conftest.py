"""Checkpoints, and the baked models made of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint

Bake = Callable[[Path, int], BakedModel]


@pytest.fixture(scope="session")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Bake a checkpoint folder with some number of bits, once a session."""
    folder, made = tmp_path_factory.mktemp("baked"), dict[tuple[Path, int], BakedModel]()

    def bake_once(checkpoint: Path, bits: int) -> BakedModel:
        key = (checkpoint, bits)
        if key not in made:
            path = folder / f"{checkpoint.name}-{bits}.bloom"
            bake(Checkpoint.open(checkpoint), path, bits=bits)
            made[key] = BakedModel(path)
        return made[key]

    return bake_once


@pytest.fixture(scope="session", params=["demo", "random_bloom", "untied_bloom"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Heads of 64; 6 (no power of two) of 16 with padding rows; of 86 with an untied head."""
    found: Path = request.getfixturevalue(request.param)
    return found
