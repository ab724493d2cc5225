"""The chat's settings, read from the environment once and checked in one place."""

import re
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


# What Kubernetes tells a pod of each service in its namespace: of a service that is called
# pibloom-ui, PIBLOOM_UI_SERVICE_HOST, PIBLOOM_UI_PORT=tcp://10.0.0.1:80 and others.
_SERVICE_LINK = re.compile(
    r"PIBLOOM(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class SettingsError(Exception):
    """A setting that cannot be used; the message is one sentence that names it."""


class Secret:
    """A text that is shown nowhere unless it is asked for by `reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(…)" if self else "Secret()"


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
            if name.startswith("PIBLOOM_") and not _is_service_link(name, text):
                if name not in OWN | OTHERS:
                    raise SettingsError(f"{name} is not a setting of piBLOOM.")
                if name in OWN and len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
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


def _is_service_link(name: str, text: str) -> bool:
    return bool(
        _SERVICE_LINK.fullmatch(name)
        or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(text))  # PIBLOOM_PORT=tcp://…
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
