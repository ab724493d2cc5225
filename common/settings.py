"""What the settings of all processes have in common: one environment serves the whole product."""

import re

PREFIX = "PIBLOOM_"
# The settings of the chat and of the functions; each process ignores the other kind's.
UI_NAMES = frozenset(
    {
        "PIBLOOM_GENERATE_URL",
        "PIBLOOM_TOKENIZE_URL",
        "PIBLOOM_UI_SECRET",
        "PIBLOOM_UI_ORIGINS",
        "PIBLOOM_API_KEY",
    }
)
# What only commands read: services ignore it.
COMMAND_NAMES = frozenset({"PIBLOOM_BAKED_BY"})
FUNCTION_NAMES = frozenset(
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
# Patterns are compiled when they are first needed: most starts never need these.
_SERVICE_LINK = (
    r"PIBLOOM(_[A-Z0-9_]+)?_"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
_SERVICE_ADDRESS = r"(tcp|udp|sctp)://"


class SettingsError(Exception):
    """A setting that does not exist, or whose value cannot be used; the message is one sentence."""


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


def is_setting(name: str, text: str) -> bool:
    """Whether a variable is meant as a setting of piBLOOM, known or not."""
    return name.startswith(PREFIX) and not _is_service_link(name, text)


def is_quoted(text: str) -> bool:
    """Whether a value is in quotes, which a shell would have removed."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes made a variable, for a service whose name begins with pibloom."""
    return bool(
        re.fullmatch(_SERVICE_LINK, name)
        or (name.endswith("_PORT") and re.match(_SERVICE_ADDRESS, text))  # PIBLOOM_PORT=tcp://…
    )
