"""Models by name, of a server that speaks the hub's protocol, and fails as hubs and lines do."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub import file_download as client

from model.checkpoint.folder import Checkpoint
from model.checkpoint.hub import fetch as fetching
from model.checkpoint.hub.cache import pulled
from model.checkpoint.hub.fetch import fetch
from model.checkpoint.hub.find import find
from model.errors import ModelError
from model.hub_cache import HubName
from model.names import default_model, folder_name
from tests.fake_hub import FakeHub, fake_hub
from tests.model.test_hub_cache import NO_NAMES, NO_REVISIONS

NAME = "bigscience/bloomz-560m"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository as people make them: with copies for other programs beside what is needed."""
    folder = Path(shutil.copytree(default_model(), tmp_path / "repository"))
    for other in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"copy" * 50_000)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return folder


@pytest.fixture
def hub(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub({NAME: source}) as hub:
        cache = tmp_path / "cache"
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(fetching, "_PAUSE", 0)
        yield hub


def pull(name: str = NAME, revision: str | None = None) -> Path:
    return fetch(find(name, revision))


def test_a_model_is_pulled_with_what_it_needs_and_no_more(hub: FakeHub, source: Path) -> None:
    assert pulled(HubName(NAME, None)) is None
    folder = pull()
    needed = {path.name for path in default_model().iterdir()}
    assert {path.name for path in folder.iterdir()} == needed
    for name in needed:
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert pulled(HubName(NAME, None)) == folder
    assert folder_name(folder) == "bloomz-560m"
    Checkpoint.open(folder)
    assert not list(folder.parent.parent.glob("blobs/*incomplete"))


def test_nothing_is_fetched_twice(hub: FakeHub) -> None:
    pull()
    before = hub.gets("model.safetensors"), hub.gets("tokenizer.json")
    pull()
    assert (hub.gets("model.safetensors"), hub.gets("tokenizer.json")) == before == (1, 1)


def test_what_the_hubs_own_library_fetched_is_not_fetched_again(hub: FakeHub) -> None:
    client.hf_hub_download(NAME, "model.safetensors")
    pull()
    assert hub.gets("model.safetensors") == 1


def test_progress_tells_each_files_bytes(hub: FakeHub, source: Path) -> None:
    reported: list[tuple[str, int]] = []
    model = find(NAME)
    assert [file.name for file in model.missing] == ["model.safetensors"]
    fetch(model, lambda name, done: reported.append((name, done)))
    sizes = [done for name, done in reported if name == "model.safetensors"]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert sizes[-1] == (source / "model.safetensors").stat().st_size


def test_a_cut_line_is_taken_up_where_it_was_cut(hub: FakeHub, source: Path) -> None:
    hub.faults.cut["model.safetensors"] = [1_000_000, 3_000_000]
    folder = pull()
    ranges = [range_ for _, path, range_ in hub.asked if path.endswith("model.safetensors")]
    assert [each for each in ranges if each] == ["bytes=1000000-", "bytes=3000000-"]
    assert (folder / "model.safetensors").read_bytes() == (
        source / "model.safetensors"
    ).read_bytes()


def test_a_killed_download_is_continued_by_the_next(hub: FakeHub, source: Path) -> None:
    model = find(NAME)

    def kill(name: str, done: int) -> None:
        if done > 5_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(model, kill)
    assert pulled(HubName(NAME, None)) is None
    (partial,) = model.folder.parent.parent.glob("blobs/*incomplete")
    left = partial.stat().st_size
    reported: list[int] = []
    folder = fetch(find(NAME), lambda name, done: reported.append(done))
    assert reported[0] == left > 0
    assert (folder / "model.safetensors").read_bytes() == (
        source / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_damaged_file_is_refused_and_fetched_anew(hub: FakeHub, name: str) -> None:
    hub.faults.damaged.add(name)
    with pytest.raises(ModelError, match=rf"{name} .* arrived damaged"):
        pull()
    assert pulled(HubName(NAME, None)) is None
    hub.faults.damaged.clear()
    Checkpoint.open(pull())


def test_shards_and_their_index_are_pulled(hub: FakeHub, source: Path) -> None:
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (source / "model.safetensors").rename(source / parts[0])
    shutil.copy(source / parts[0], source / parts[1])
    table = {"a": parts[0], "b": parts[1]}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    folder = pull()
    assert {*parts, "model.safetensors.index.json"} <= {path.name for path in folder.iterdir()}
    assert hub.gets("pytorch_model.bin") == 0
    (source / parts[1]).unlink()
    hub.commit = "f" * 40
    with pytest.raises(ModelError, match="lacks 'model-00002-of-00002.safetensors'"):
        pull()


def test_pickled_weights_are_taken_where_there_are_no_others(hub: FakeHub, source: Path) -> None:
    (source / "model.safetensors").unlink()
    assert (pull() / "pytorch_model.bin").exists()


def test_templates_come_along(hub: FakeHub, source: Path) -> None:
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    assert (pull() / "additional_chat_templates" / "rag.jinja").read_text() == "{{ messages }}"


def test_the_licence_is_known_before_the_weights_are_fetched(hub: FakeHub, source: Path) -> None:
    (source / "README.md").write_text("---\nlicense: bigscience-bloom-rail-1.0\n---\n# A model\n")
    assert find(NAME).license == "bigscience-bloom-rail-1.0"
    assert hub.gets("model.safetensors") == 0


def test_a_new_revision_brings_only_what_changed(hub: FakeHub, source: Path) -> None:
    first = pull()
    hub.commit = "f" * 40
    (source / "README.md").write_text("Another card.")
    second = pull()
    assert second != first
    assert pulled(HubName(NAME, None)) == second
    assert hub.gets("model.safetensors") == 1
    assert pulled(HubName(NAME, first.name)) == first
    assert pull(revision=hub.commit) == second


def test_a_model_that_is_here_needs_no_hub(hub: FakeHub) -> None:
    folder = pull()
    asked = len(hub.asked)
    assert pulled(HubName(NAME, None)) == folder
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"missing": True}, f"there is no model {NAME} on the hub, or it is private"),
        ({"gated": True}, f"{NAME} is gated: accept its terms"),
        ({"status": {"listing": 429}}, "the hub answered 429; it asks to wait"),
        ({"status": {"listing": 500}}, "the hub answered 500; try again later"),
        ({"status": {"config.json": 404}}, "the hub"),
        ({"status": {"tokenizer.json": 403}}, "the hub answered 403"),
    ],
    ids=str,
)
def test_refusals_of_the_hub_are_sentences(
    hub: FakeHub, fault: dict[str, object], message: str
) -> None:
    for name, value in fault.items():
        setattr(hub.faults, name, value)
    with pytest.raises(ModelError, match=message) as caught:
        pull()
    assert "\n" not in str(caught.value)
    assert hub.gets("model.safetensors") == 0


def test_an_unknown_revision_is_named(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match="has no revision 'nightly'"):
        pull(revision="nightly")


def test_no_network_is_a_sentence(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        pull()
    assert "\n" not in str(caught.value)
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [b"<html>log in</html>", b"\xff\xfe", b"[]", b"{}", b'"text"', b'{"sha": 1}'], ids=str
)
def test_what_is_not_the_hub_is_a_sentence(
    hub: FakeHub, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.answer = answer
    with pytest.raises(ModelError, match="what answered is not the hub") as caught:
        pull()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999", "http://127.0.0.1:80x", "http://:80", "http://[::1"]
)
def test_an_address_that_is_none_is_a_sentence(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ModelError, match="HF_ENDPOINT is not an address"):
        pull()


def test_a_token_that_cannot_be_sent_is_not_told(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    with pytest.raises(ModelError, match="is not of ASCII alone") as caught:
        pull()
    assert "cret" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ModelError, match=r"file/hub cannot be written \(Not a directory\)"):
        pull()


def test_another_architecture_is_refused_before_gigabytes(hub: FakeHub, source: Path) -> None:
    (source / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="llama"):
        pull()
    assert [
        path for _, path, _ in hub.asked if "resolve" in path and "config.json" not in path
    ] == []


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("tokenizer.json", "has no tokenizer.json"),
        ("config.json", "has no config.json"),
        ("model.safetensors pytorch_model.bin", "has no weights: expected model.safetensors or"),
    ],
)
def test_what_lacks_a_file_is_refused_before_gigabytes(
    hub: FakeHub, source: Path, lacking: str, message: str
) -> None:
    for name in lacking.split():
        (source / name).unlink()
    with pytest.raises(ModelError, match=message):
        pull()
    assert hub.gets("model.safetensors") == 0


def test_an_adapter_is_called_one(hub: FakeHub, source: Path) -> None:
    (source / "config.json").rename(source / "adapter_config.json")
    with pytest.raises(ModelError, match="is an adapter"):
        pull()


def test_a_full_disk_is_told_before_it_is_full(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    model = find(NAME)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(
        ModelError, match="takes 17 MB more and 67 MB to spare, but .* has 1 MB free"
    ):
        fetch(model)
    assert hub.gets("model.safetensors") == 0


def test_a_token_is_sent(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    pull()
    assert hub.tokens == {"Bearer hf_of_a_test"}


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_not_asked_for(hub: FakeHub, text: str) -> None:
    with pytest.raises(ModelError, match="is not the name of a model"):
        find(text)
    assert not hub.asked


@pytest.mark.parametrize("revision", NO_REVISIONS)
def test_what_is_no_revision_is_not_asked_for(hub: FakeHub, revision: str) -> None:
    with pytest.raises(ModelError, match=f"is not the name of a revision of {NAME}$"):
        find(NAME, revision)
    assert not hub.asked


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_more_bytes_than_the_listing_says_are_not_kept(hub: FakeHub, name: str) -> None:
    hub.faults.longer.add(name)
    with pytest.raises(ModelError, match=f"{name} is longer than"):
        pull()
    hub.faults.longer.clear()
    Checkpoint.open(pull())


@pytest.mark.parametrize("etag", ["../../../outside", "-", "0" * 39, "G" * 40, "a/" * 20])
@pytest.mark.parametrize("name", ["model.safetensors", "generation_config.json"])
def test_a_hash_that_could_name_another_file_is_refused(hub: FakeHub, name: str, etag: str) -> None:
    hub.faults.hashes[name] = etag
    with pytest.raises(ModelError, match=f"the hub names no hash of '{name}'"):
        pull()
    assert hub.gets(name) == 0


@pytest.mark.parametrize("shard", ["../outside.safetensors", "sub/model.safetensors", "/etc/x"])
def test_a_shard_outside_of_the_folder_is_refused(hub: FakeHub, source: Path, shard: str) -> None:
    (source / "model.safetensors").unlink()
    table = {"weight_map": {"a": shard}}
    (source / "model.safetensors.index.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match="outside of its folder"):
        pull()


def parts(folder: Path) -> list[Path]:
    return list((folder.parent.parent / "blobs").glob("*.incomplete"))


def test_what_is_left_of_a_former_revision_is_deleted(hub: FakeHub, source: Path) -> None:
    hub.faults.status["model.safetensors"] = 503
    model = find(NAME)
    blobs = model.folder.parent.parent / "blobs"
    (blobs / f"{'0' * 64}.pibloom.incomplete").write_bytes(b"of a former revision")
    held = blobs / f"{'1' * 64}.pibloom.incomplete"
    with held.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="503"):
            fetch(model)
        assert len(parts(model.folder)) == 3, "a pull that failed deletes nothing"
        hub.faults.status.clear()
        fetch(model)
        assert parts(model.folder) == [held], "another process fetches it"
    fetch(model)
    assert not parts(model.folder)
