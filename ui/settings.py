"""The chat's settings, read from the environment once and checked in one place."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from common.settings import (
    COMMAND_NAMES,
    FUNCTION_NAMES,
    UI_NAMES,
    Secret,
    SettingsError,
    is_quoted,
    is_setting,
)

GENERATE_URL = "http://127.0.0.1:8081"
TOKENIZE_URL = "http://127.0.0.1:8082"
HOST = "127.0.0.1"
PORT = 8080


@dataclass(frozen=True)
class Settings:
    """Where the chat listens, where the functions answer, its key to them, and its cookie's.

    `origins` are the chat's own addresses behind a proxy that changes the Host.
    """

    generate_url: str = GENERATE_URL
    tokenize_url: str = TOKENIZE_URL
    api_key: Secret = field(default_factory=Secret)
    secret: Secret = field(default_factory=Secret)
    secret_is_random: bool = True
    host: str = HOST
    port: int = PORT
    origins: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read `environ`; raises `SettingsError` for an unknown PIBLOOM_* name or a bad value."""
        for name, text in sorted(environ.items()):
            if is_setting(name, text):
                if name not in UI_NAMES | FUNCTION_NAMES | COMMAND_NAMES:
                    raise SettingsError(f"{name} is not a setting of piBLOOM.")
                if name in UI_NAMES and is_quoted(text):
                    raise SettingsError(
                        f"{name} is set with quotes around its value; leave the quotes out."
                    )
        secret = environ.get("PIBLOOM_UI_SECRET", "")
        if secret and len(secret) < 16:
            raise SettingsError("PIBLOOM_UI_SECRET must have at least 16 characters.")
        return cls(
            generate_url=_url(environ, "PIBLOOM_GENERATE_URL", GENERATE_URL),
            tokenize_url=_url(environ, "PIBLOOM_TOKENIZE_URL", TOKENIZE_URL),
            api_key=_key(environ.get("PIBLOOM_API_KEY", "")),
            secret=Secret(secret or secrets.token_urlsafe(32)),
            secret_is_random=not secret,
            host=environ.get("HOST") or HOST,
            port=_port(environ.get("PORT") or str(PORT)),
            origins=_origins(environ.get("PIBLOOM_UI_ORIGINS", "")),
        )


def _url(environ: Mapping[str, str], name: str, default: str) -> str:
    given = environ.get(name) or default
    try:
        parts = urlsplit(given)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if "@" in given:  # a password would be part of what is shown
        raise SettingsError(f"{name} must hold no name or password; PIBLOOM_API_KEY is for a key.")
    if not good or parts.query or parts.fragment:
        raise SettingsError(f"{name} must be an address like {default}, not {given!r}.")
    return given.rstrip("/")


def _origins(given: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in given.split(",") if part.strip())
    for origin in origins:
        try:
            parts = urlsplit(origin)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or origin != f"{parts.scheme}://{parts.netloc}" or "@" in origin:
            raise SettingsError(
                "PIBLOOM_UI_ORIGINS must be addresses like https://chat.example, separated by"
                f" commas, not {origin!r}."
            )
    return origins


def _key(given: str) -> Secret:
    key = given.strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingsError("PIBLOOM_API_KEY must be of ASCII characters that can be printed.")
    return Secret(key)


def _port(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= 65535:
        raise SettingsError(f"PORT must be a port from 1 to 65535, not {given!r}.")
    return int(given)
