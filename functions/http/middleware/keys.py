"""API keys: who may ask, and which tenant it is."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from flask import Request

from functions.errors import Unauthorized, WrongKey

# Where a request's WSGI environment holds its tenant: a digest of the key that it brought.
TENANT = "pibloom.tenant"
_PROBES = {"/healthz", "/readyz"}


class Keys:
    """The keys that are accepted; without any, every request is."""

    def __init__(self, keys: Sequence[str], *, open_metrics: bool) -> None:
        self._keys = [key.encode() for key in keys]
        secret = secrets.token_bytes(32)  # of this process, so that digests tell nothing elsewhere
        self._tenants = [
            hashlib.blake2b(key, key=secret, digest_size=16).hexdigest() for key in self._keys
        ]
        self._open_paths = _PROBES | ({"/metrics"} if open_metrics else set())

    def check(self, request: Request) -> None:
        """Note which tenant a request comes from; `Unauthorized` where it brings no right key."""
        if self._keys and request.path.rstrip("/") not in self._open_paths:
            request.environ[TENANT] = self._tenants[self._index(request)]

    def _index(self, request: Request) -> int:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer"
        given = (credentials.strip() if bearer else "") or request.headers.get("X-API-Key", "")
        # Every key is compared, in constant time: how long it takes tells nothing.
        matches = [hmac.compare_digest(given.encode(errors="replace"), key) for key in self._keys]
        if any(matches):
            return matches.index(True)
        if given:
            raise WrongKey("the key that was sent is not accepted here")
        if scheme and not bearer:
            raise Unauthorized(
                "a key is needed as Authorization: Bearer KEY, but another scheme came"
            )
        raise Unauthorized("a key is needed, and none was sent: Authorization: Bearer KEY")
