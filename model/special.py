"""What a checkpoint folder calls its special tokens, as `transformers` reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model import files
from model.errors import ModelError

NAMES = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)
SETTINGS = "tokenizer_config.json"
FORMER_MAP = "special_tokens_map.json"  # read where the settings list no added tokens


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, empty where there is no such file; `ModelError` for anything else."""
    try:
        return files.read_object(path)
    except FileNotFoundError:
        return {}


def special_settings(folder: Path) -> dict[str, Any]:
    """Return the folder's tokenizer settings, with the special tokens that they end up with."""
    settings = read_object(folder / SETTINGS)
    if not settings.get("extra_special_tokens") and "additional_special_tokens" in settings:
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    if "added_tokens_decoder" not in settings:
        former = read_object(folder / FORMER_MAP)
        if isinstance(former.get("extra_special_tokens"), list):
            known = list(settings.get("extra_special_tokens") or [])
            former["extra_special_tokens"] = known + [
                each for each in former["extra_special_tokens"] if each not in known
            ]
        settings.update(former)
    if not settings.get("extra_special_tokens") and "additional_special_tokens" in settings:
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    return settings


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that have a name, such as `bos_token`, with their texts."""
    extra = settings.get("extra_special_tokens")
    named = {
        name: value
        for name, value in settings.items()
        if name in NAMES or (name.endswith("_token") and isinstance(value, str | dict))
    }
    if isinstance(extra, dict):
        named |= extra
    return {
        str(name): token_text(value, str(name))
        for name, value in named.items()
        if value is not None
    }


def token_text(value: object, name: str) -> str:
    """Return a token's text: settings have it as it is, or as an object with its `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    if not isinstance(value, str):
        raise ModelError(f"{SETTINGS}: {name} is neither a text nor an object with its content")
    return value
