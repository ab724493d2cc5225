"""A model on the hub: looked up by its name, and refused before its weights are fetched."""

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from model.checkpoint.gptq import GptqSettings
from model.checkpoint.hub.client import hub_errors, hub_library, not_the_hub
from model.checkpoint.hub.fetch import RemoteFile, RemoteModel, fetch_missing
from model.checkpoint.weight_files import INDEX, LARGEST_INDEX, main_file, no_weights, other_weights
from model.config import BloomConfig
from model.errors import ModelError
from model.files import read_object, shown
from model.hub_cache import is_name, is_revision
from model.license import license_of

if TYPE_CHECKING:
    from huggingface_hub import RepoSibling


# The small files that a bake reads, and what a person should read.
_DESCRIPTIONS = {
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
}
_TEMPLATES = "additional_chat_templates"


def find(name: str, revision: str | None = None) -> RemoteModel:
    """Look a model up and fetch its small files, so that gigabytes of the wrong kind are refused.

    `ModelError` when there is no such model or revision, when it is gated, of another architecture
    or lacks a file, and when the hub cannot be reached or asks to wait.
    """
    if not is_name(name):
        raise ModelError(
            f"{name!r} is not the name of a model; names are like bigscience/bloomz-560m"
        )
    if revision is not None and not is_revision(revision):
        raise ModelError(f"{shown(revision)} is not the name of a revision of {name}")
    hub = hub_library()
    with hub_errors(name, revision):
        try:
            found = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        except (AttributeError, KeyError, TypeError):  # JSON of another shape
            raise not_the_hub(name) from None
        siblings = {each.rfilename: each for each in found.siblings or ()}
        commit = str(found.sha)
        _refuse_others(name, siblings)
        # This also notes in the cache which commit the revision is.
        config = Path(hub.hf_hub_download(name, "config.json", revision=revision))
    folder = config.parent
    if folder.name != commit:
        raise ModelError(f"{name} was changed on the hub while it was looked up; try again")
    BloomConfig.open(config)
    GptqSettings.open(folder)
    small = [each for each in siblings if each in _DESCRIPTIONS or _is_template(each)]
    main = main_file(siblings.__contains__)
    if main is None:
        raise ModelError(no_weights(name, siblings))
    sharded = main.endswith(INDEX)
    small += [main] if sharded else []
    described = [_file(name, siblings[each]) for each in sorted(small)]
    model = RemoteModel(name, commit, folder, None, tuple(described))
    fetch_missing(model, lambda file, done: None)
    weights = _shards(name, folder / main, siblings) if sharded else [main]
    files = [*described, *(_file(name, siblings[each]) for each in weights)]
    return RemoteModel(name, commit, folder, license_of(folder), tuple(files))


def _refuse_others(name: str, siblings: dict[str, "RepoSibling"]) -> None:
    """Refuse a repository that holds no whole model, and say what it is."""
    if "config.json" not in siblings:
        if "adapter_config.json" in siblings:
            raise ModelError(f"{name} is an adapter (LoRA), not a whole model")
        raise ModelError(
            f"{name} has no config.json, so it is not a model that transformers can load"
            f"{other_weights(siblings)}"
        )
    if "tokenizer.json" not in siblings:
        raise ModelError(f"{name} has no tokenizer.json, which piBLOOM needs")


def _shards(name: str, index: Path, siblings: dict[str, "RepoSibling"]) -> list[str]:
    table = read_object(index, LARGEST_INDEX).get("weight_map")
    shards = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    for shard in shards:
        if PurePosixPath(shard).name != shard:
            raise ModelError(f"{name}: its {index.name} names {shard!r}, outside of its folder")
        if shard not in siblings:
            raise ModelError(f"{name} lacks {shard!r}, although its {index.name} names it")
    if not shards:
        raise ModelError(f"{name}: its {index.name} names no weights")
    return shards


def _is_template(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent == PurePosixPath(_TEMPLATES) and path.suffix == ".jinja"


def _file(name: str, sibling: "RepoSibling") -> RemoteFile:
    large = sibling.lfs
    size, etag = (large.size, large.sha256) if large else (sibling.size or 0, sibling.blob_id)
    if not re.fullmatch(r"[0-9a-f]{64}" if large else r"[0-9a-f]{40}", etag or ""):  # a file's name
        raise ModelError(f"{name}: the hub names no hash of {sibling.rfilename!r}")
    return RemoteFile(sibling.rfilename, size, str(etag), large=bool(large))
