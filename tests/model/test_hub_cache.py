"""Names on the hub, and the folders that they have in its cache: none leads out of it."""

from pathlib import Path

import huggingface_hub
import pytest

from model.baked.source import located
from model.errors import ModelError
from model.hub_cache import HubName, hub_cache, hub_name, is_name, is_revision, snapshot

NAME = "bigscience/bloomz-560m"
NO_NAMES = [
    *("../secrets", "a/../b", "../../a/b", "a/..", "/etc/passwd", "a", "a/b/c", "a/", "/b"),
    *("a/b\n", "a b/c", "~/bloom", "", "a/b--c", "a/\u0661", ".a/b", "a/.b", "-a/b"),
]
NO_REVISIONS = [
    *("../main", "a/../../b", "..", "/etc/passwd", "", "a b", "main\n", "~", "-x", ".git", "a\0b"),
]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)
    assert hub_name(text) is None
    assert hub_name(f"{text}@main") is None


@pytest.mark.parametrize("text", NO_REVISIONS)
def test_what_is_no_revision(text: str) -> None:
    assert not is_revision(text)
    assert hub_name(f"{NAME}@{text}") is None


@pytest.mark.parametrize("name", [NAME, "YeungNLP/bloomz-396m-zh", "a_b/c.d", "A1/B"])
@pytest.mark.parametrize("revision", [None, "main", "v1.0", "refs/pr/3", "c" * 40, "2026-12_a+b"])
def test_names(name: str, revision: str | None) -> None:
    text = name if revision is None else f"{name}@{revision}"
    assert hub_name(text) == HubName(name, revision)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_is_where_the_hubs_library_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    assert hub_cache() == tmp_path / below[variable]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_revision_is_looked_up_as_the_hubs_library_does(cache: Path) -> None:
    storage, commit = cache / "models--bigscience--bloomz-560m", "c" * 40
    (storage / "refs" / "refs" / "pr").mkdir(parents=True)
    (storage / "snapshots" / commit).mkdir(parents=True)
    (storage / "snapshots" / commit / "config.json").touch()
    for ref in ("main", "refs/pr/1"):
        (storage / "refs" / ref).write_text(commit)
    for revision in (None, "main", "refs/pr/1", commit):
        found = huggingface_hub.try_to_load_from_cache(
            NAME, "config.json", cache_dir=cache, revision=revision
        )
        assert str(snapshot(HubName(NAME, revision)) / "config.json") == found


@pytest.mark.parametrize("noted", ["../../../outside", "/etc", "", "a b"])
def test_a_note_in_the_cache_does_not_lead_out_of_it(cache: Path, noted: str) -> None:
    refs = cache / "models--bigscience--bloomz-560m" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(noted)
    assert snapshot(HubName(NAME, None)) == refs.parent / "snapshots" / "main"


def test_a_service_finds_what_was_pulled_and_fetches_nothing(cache: Path) -> None:
    with pytest.raises(ModelError, match=f"nor a model that was pulled.*pibloom pull {NAME} does"):
        located(Path(NAME))
    folder = cache / "models--bigscience--bloomz-560m" / "snapshots" / "main"
    folder.mkdir(parents=True)
    assert located(Path(NAME)) == folder
    assert located(Path("no such path")) == Path("no such path")


def test_a_path_comes_before_a_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert located(Path(NAME)) == Path(NAME)
