"""Text that a running function writes, read from its stream."""

import ipaddress
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from cli.main import Failure

LONGEST_REFUSAL = 64 * 1024  # bytes that are read of a server's error
LONGEST_MESSAGE = 1000  # characters of it that are shown


def api_key(file: Path | None) -> str:
    """Return the key that the function gets, if any; no error shows it."""
    where, key = "PIBLOOM_API_KEY", os.environ.get("PIBLOOM_API_KEY", "")
    if file is not None:
        where = f"--api-key-file {file}"
        try:
            key = file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise click.UsageError(f"{where} cannot be read: {reason}") from None
        if not key:
            raise click.UsageError(f"{where} holds no key")
        key = key.splitlines()[0].strip()
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError(f"{where} must be of ASCII characters that can be printed")
    return key.strip()


def stream_from_url(
    url: str, key: str, body: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and data of the events that a function at `url` sends for a request's body.

    The last one is "done". `Failure` when the function refuses, fails or cannot be reached.
    """
    import httpx
    from httpx_sse import connect_sse

    timeout = httpx.Timeout(10, read=60)  # a stream's heartbeat comes every few seconds
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    encrypted = url.lower().startswith("https:")  # else no certificates need be found or read
    try:
        client = httpx.Client(
            timeout=timeout, headers=headers, trust_env=not _is_here(url), verify=encrypted
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise Failure(f"the environment's proxy or certificates cannot be used: {error}") from None
    try:
        with client, connect_sse(client, "POST", url, json=body | {"stream": True}) as source:
            if source.response.status_code != 200:
                raise Failure(_refusal(url, source.response))
            for event in source.iter_sse():
                try:
                    data = json.loads(event.data)
                    if event.event == "error":
                        raise Failure(str(data["error"]["message"])[:LONGEST_MESSAGE])
                    if event.event == "token":
                        data = {"text": str(data["text"])}
                except (ValueError, KeyError, TypeError):
                    raise Failure(f"{url} answers, but not as piBLOOM does") from None
                yield event.event, data
                if event.event == "done":
                    return
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Failure(f"{url} cannot be asked: {error or type(error).__name__}") from None
    raise Failure(f"{url} broke the stream off before its end")


def _refusal(url: str, response: Any) -> str:
    said = b""
    for part in response.iter_bytes():
        said += part
        if len(said) > LONGEST_REFUSAL:
            break
    try:
        return str(json.loads(said)["error"]["message"])[:LONGEST_MESSAGE]
    except (ValueError, KeyError, TypeError):
        return f"{url} answered with status {response.status_code}"


def _is_here(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy leads to."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(_dotted(host))
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or address.is_unspecified
    return False


def _dotted(host: str) -> str:
    """Return an IPv4 address that is written otherwise, such as 127.1, in its usual form."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host
