"""What a folder is called, in the hub's cache too."""

from pathlib import Path

import pytest

from model.names import folder_name

HASH = "a3b1c5d7e9f0a3b1c5d7e9f0a3b1c5d7e9f0a3b1"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("bloom-560m", "bloom-560m"),
        (f"hub/models--bigscience--bloomz-560m/snapshots/{HASH}", "bloomz-560m"),
        (f"hub/models--bigscience--bloomz-560m/snapshots/{HASH}/", "bloomz-560m"),
        (f"hub/models--org--a--b/snapshots/{HASH}", "a--b"),
        (f"hub/models--bloom/snapshots/{HASH}", "bloom"),
        (f"snapshots/{HASH}", HASH),
        (f"hub/datasets--org--x/snapshots/{HASH}", HASH),
        ("models--org--name", "models--org--name"),
    ],
)
def test_a_folder_is_called_as_its_model(tmp_path: Path, folder: str, name: str) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    assert folder_name(path) == name
    link = tmp_path / "link"
    link.symlink_to(path)
    assert folder_name(link) == name


def test_the_folder_that_is_current_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models--org--bloomz" / "snapshots" / HASH
    path.mkdir(parents=True)
    monkeypatch.chdir(path)
    assert folder_name(Path(".")) == folder_name(Path("")) == "bloomz"
