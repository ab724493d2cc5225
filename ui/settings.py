"""The chat's settings, read from the environment once and checked in one place."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

GENERATE_URL = "http://127.0.0.1:8081"
TOKENIZE_URL = "http://127.0.0.1:8082"
HOST = "127.0.0.1"
PORT = 8080

OWN = frozenset(
    {
        "PIBLOOM_GENERATE_URL",
        "PIBLOOM_TOKENIZE_URL",
        "PIBLOOM_UI_SECRET",
        "PIBLOOM_UI_ORIGINS",
        "PIBLOOM_API_KEY",
    }
)
# One environment serves the whole product, so the functions' names are known here, and ignored.
OTHERS = frozenset(
    {
        "PIBLOOM_MODEL",
        "PIBLOOM_ENGINE",
        "PIBLOOM_BITS",
        "PIBLOOM_THREADS",
        "PIBLOOM_KV_MEMORY",
        "PIBLOOM_CHAT_TEMPLATE",
        "PIBLOOM_DTYPE",
        "PIBLOOM_DEVICE",
        "PIBLOOM_MAX_BATCH",
        "PIBLOOM_MAX_QUEUE",
        "PIBLOOM_MAX_QUEUE_TOKENS",
        "PIBLOOM_MAX_BODY",
        "PIBLOOM_DEADLINE",
        "PIBLOOM_GRACE",
        "PIBLOOM_API_KEYS",
        "PIBLOOM_API_KEYS_FILE",
        "PIBLOOM_OPEN_METRICS",
        "PIBLOOM_CORS_ORIGINS",
        "PIBLOOM_LOG_LEVEL",
    }
)


class SettingsError(Exception):
    """A setting that cannot be used; the message is one sentence that names it."""


@dataclass(frozen=True)
class Settings:
    """Where the chat listens, where the functions answer, its key to them, and its cookie's.

    `origins` are the chat's own addresses behind a proxy that changes the Host.
    """

    generate_url: str = GENERATE_URL
    tokenize_url: str = TOKENIZE_URL
    api_key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    secret_is_random: bool = True
    host: str = HOST
    port: int = PORT
    origins: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read `environ`; raises `SettingsError` for an unknown PIBLOOM_* name or a bad value."""
        unknown = sorted(n for n in environ if n.startswith("PIBLOOM_") and n not in OWN | OTHERS)
        if unknown:
            raise SettingsError(f"{unknown[0]} is not a setting of piBLOOM.")
        secret = environ.get("PIBLOOM_UI_SECRET", "")
        if secret and len(secret) < 16:
            raise SettingsError("PIBLOOM_UI_SECRET must have at least 16 characters.")
        return cls(
            generate_url=_url(environ, "PIBLOOM_GENERATE_URL", GENERATE_URL),
            tokenize_url=_url(environ, "PIBLOOM_TOKENIZE_URL", TOKENIZE_URL),
            api_key=_key(environ.get("PIBLOOM_API_KEY", "")),
            secret=secret or secrets.token_urlsafe(32),
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


def _key(given: str) -> str:
    key = given.strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingsError("PIBLOOM_API_KEY must be of ASCII characters that can be printed.")
    return key


def _port(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= 65535:
        raise SettingsError(f"PORT must be a port from 1 to 65535, not {given!r}.")
    return int(given)
