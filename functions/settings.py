"""The settings of the functions, in one table; read from the environment and checked once."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.settings import (
    COMMAND_NAMES,
    PREFIX,
    UI_NAMES,
    Secret,
    SettingsError,
    is_quoted,
    is_setting,
)
from model.files import shortened
from model.limits import DEFAULT_LIMITS, Limits
from model.names import ENGINES, default_model


def _setting(default: Any, help_: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": help_, **limits})


@dataclass(frozen=True)
class Settings:
    """Each field is the variable PIBLOOM_ and its name in capitals."""

    model: Path = _setting(
        default_model(),
        "`model.bloom`, a checkpoint folder, which is baked first, or a name on the hub, which"
        " `pibloom up` pulls, and a function takes when it was pulled; by default the demo model",
    )
    engine: str = _setting("native", "what runs the model", among=ENGINES)
    bits: int = _setting(8, "bits of a weight when a folder is baked", among=("8", "4"))
    threads: int = _setting(0, "threads of the native engine; 0: one a core", low=0, high=256)
    kv_memory: int = _setting(
        256 << 20, "bytes for the keys and values of all chats; half may be kept", low=1 << 20
    )
    chat_template: str = _setting(
        "", "how a chat becomes a prompt: a preset of `docs/models.md`, or a Jinja file"
    )
    dtype: str = _setting(
        "float32", "the reference engine's weights", among=("float32", "bfloat16")
    )
    device: str = _setting("auto", "where the reference engine runs", among=("auto", "cpu", "cuda"))
    max_batch: int = _setting(
        DEFAULT_LIMITS.max_batch, "generations that run at once", low=1, high=64
    )
    max_queue: int = _setting(
        DEFAULT_LIMITS.max_queue, "generations that may wait; more get 429", low=0, high=10_000
    )
    max_queue_tokens: int = _setting(
        DEFAULT_LIMITS.max_queue_tokens,
        "tokens of waiting prompts; more get 429",
        low=1,
        high=10**9,
    )
    max_body: int = _setting(1 << 20, "bytes of a request's body; more get 413", low=1024)
    deadline: float = _setting(120.0, "seconds that one request may take", low=1, high=86_400)
    grace: float = _setting(30.0, "seconds for running requests at SIGTERM", low=0, high=3600)
    api_keys: Secret = _setting(
        Secret(),
        "keys that requests must bring one of, with commas between; none: no key is asked for",
    )
    api_keys_file: str = _setting("", "a file of such keys, one a line")
    open_metrics: int = _setting(1, "whether /metrics needs no key: 1 or 0", low=0, high=1)
    cors_origins: str = _setting(
        "", "origins whose pages may call, with commas between; none by default"
    )
    log_level: str = _setting(
        "INFO", "least severe log line", among=("DEBUG", "INFO", "WARNING", "ERROR")
    )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the PIBLOOM_ variables; `SettingsError` for an unknown name or a bad value."""
        by_name = {PREFIX + item.name.upper(): item for item in fields(cls)}
        found = {}
        for name, text in environment.items():
            if not is_setting(name, text) or name in UI_NAMES | COMMAND_NAMES:
                continue
            if name not in by_name:
                known = ", ".join(sorted({*by_name, *UI_NAMES}))
                raise SettingsError(f"{name} is not a setting of piBLOOM; the settings are {known}")
            if text:  # an empty variable is one that is not given
                item = by_name[name]
                found[item.name] = _parse(name, text, item.type, item.metadata)
        settings = cls(**found)
        keys_of(settings)
        origins_of(settings)
        return settings

    @property
    def limits(self) -> Limits:
        """The model's limits; each is a setting of the same name."""
        return Limits(**{item.name: getattr(self, item.name) for item in fields(Limits)})

    @property
    def loading(self) -> dict[str, Any]:
        """How the model is loaded, by the names that `model.load.load` has for it."""
        return {
            "engine": self.engine,
            "bits": self.bits,
            "threads": self.threads,
            "kv_bytes": self.kv_memory,
            "dtype": self.dtype,
            "device": self.device,
            "limits": self.limits,
            "chat_template": self.chat_template,
        }


def _parse(name: str, text: str, type_: Any, limits: Mapping[str, Any]) -> Any:
    if is_quoted(text):
        raise SettingsError(f"{name} is set with quotes around its value; leave the quotes out")
    if type_ is Secret:
        return Secret(text)
    if type_ is Path:
        return home_expanded(name, text)
    if "among" in limits and text not in limits["among"]:
        raise SettingsError(
            f"{name} must be one of {', '.join(limits['among'])}, not {shortened(text)!r}"
        )
    if type_ is str:
        return str(home_expanded(name, text)) if text.startswith("~") else text
    kind = "a whole number" if type_ is int else "a number"
    try:
        value = type_(text)
    except ValueError:
        raise SettingsError(f"{name} must be {kind}, not {shortened(text)!r}") from None
    low, high = limits.get("low", -math.inf), limits.get("high", math.inf)
    if not low <= value <= high:
        bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise SettingsError(f"{name} must be {kind} {bounds}, not {shortened(text)!r}")
    return value


def home_expanded(name: str, text: str) -> Path:
    """Return a path whose `~` is a home folder; `SettingsError` where there is no such."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{name} is {shortened(text)!r}, but that home folder is not known"
        ) from None


def keys_of(settings: Settings) -> tuple[str, ...]:
    """Return the keys that may be brought; `SettingsError` when their file cannot be read."""
    keys = settings.api_keys.reveal().split(",")
    given = len(keys)
    if settings.api_keys_file:
        try:
            keys += Path(settings.api_keys_file).read_text("utf-8").splitlines()
        except (OSError, ValueError):
            raise SettingsError("PIBLOOM_API_KEYS_FILE names a file that cannot be read") from None
        if not any(key.strip() for key in keys[given:]):
            raise SettingsError("PIBLOOM_API_KEYS_FILE names a file without a key")
    found = tuple(key.strip() for key in keys if key.strip())
    if settings.api_keys and not found:
        raise SettingsError("PIBLOOM_API_KEYS is set, but holds no key")
    if not all(key.isascii() and key.isprintable() for key in found):
        raise SettingsError("a key must be of ASCII characters that can be printed")
    return found


def origins_of(settings: Settings) -> frozenset[str]:
    """Return the origins whose pages may call; `SettingsError` for what no browser would send."""
    found = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    for origin in found:
        if not re.fullmatch(r"https?://[^/\s*?#@]+", origin):
            raise SettingsError(
                f"PIBLOOM_CORS_ORIGINS: {origin!r} is not an origin such as https://chat.example"
            )
    return frozenset(found)


def table() -> str:
    """Write the settings as README's Markdown table."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for item in fields(Settings):
        default = "the demo model" if item.name == "model" else item.default
        default = "none" if not default and default != 0 else default
        default = (
            "the model's own, or the preset for its name"
            if item.name == "chat_template"
            else default
        )
        among = item.metadata.get("among")
        choices = f" ({', '.join(among)})" if among else ""
        name = PREFIX + item.name.upper()
        lines.append(f"| `{name}` | {default} | {item.metadata['help']}{choices} |")
    return "\n".join(lines)
