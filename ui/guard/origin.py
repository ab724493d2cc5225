"""Whether a request comes from a page of this chat, as far as its browser says."""

from collections.abc import Collection
from urllib.parse import urlsplit

from ui.asgi import Message


def is_own_origin(scope: Message, origins: Collection[str]) -> bool:
    """Tell whether the Origin is one of `origins`, the Host or the forwarded Host, or absent.

    A request with two Origins or two Hosts does not come from a page.
    """
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in headers and name in (b"origin", b"host"):
            return False
        headers[name] = value.decode("latin-1")
    origin = headers.get(b"origin")
    if origin is None or origin in origins:
        return True
    hosts = [headers.get(b"host", ""), headers.get(b"x-forwarded-host", "").split(",")[0]]
    return any(same_host(origin, host.strip()) for host in hosts)


def same_host(origin: str, host: str) -> bool:
    """Tell whether an Origin names this Host; its scheme may differ, since a proxy may end TLS."""
    try:
        site = urlsplit(origin)
        here = urlsplit(f"//{host}")
        default = {"http": 80, "https": 443}[site.scheme]
        return (
            bool(site.hostname)
            and "@" not in origin
            and site.hostname == here.hostname
            and (site.port or default) == (here.port or default)
            and origin.lower() == f"{site.scheme}://{site.netloc}".lower()
        )
    except (KeyError, ValueError):
        return False
