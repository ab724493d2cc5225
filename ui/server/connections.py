"""How many connections are open, and which of them makes way for a new one."""

import asyncio
import resource
from collections import OrderedDict

from ui.limits import CONNECTIONS, PROBE_CONNECTIONS, SPARE_DESCRIPTORS

BACKLOG = 128  # connections that may be accepted at once, before any of them is counted


class ConnectionTable:
    """Which connections are open, and which of them are silent, the longest silent first."""

    def __init__(self) -> None:
        self.limit = CONNECTIONS
        self.open: set[asyncio.BaseTransport] = set()
        self._silent: OrderedDict[asyncio.BaseTransport, None] = OrderedDict()
        self._for_probes: OrderedDict[asyncio.BaseTransport, None] = OrderedDict()

    def fit_limit(self) -> None:
        """Raise the limit on open files as far as the system allows, and stay below it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = CONNECTIONS + PROBE_CONNECTIONS + BACKLOG + SPARE_DESCRIPTORS
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.limit = max(16, min(CONNECTIONS, soft - (wanted - CONNECTIONS)))

    def add(self, transport: asyncio.BaseTransport) -> bool:
        """Add a new connection, and make room for it; False if it may only send a probe."""
        for_requests = len(self.open) < self.limit
        if not for_requests and self._silent:
            self._end_first(self._silent)
            for_requests = True
        if for_requests:
            self._silent[transport] = None
        else:
            if len(self._for_probes) >= PROBE_CONNECTIONS:
                self._end_first(self._for_probes)
            self._for_probes[transport] = None
        self.open.add(transport)
        return for_requests

    def _end_first(self, transports: OrderedDict[asyncio.BaseTransport, None]) -> None:
        transport, _ = transports.popitem(last=False)
        self.remove(transport)
        _abort(transport)

    def mark_silent(self, transport: asyncio.BaseTransport) -> None:
        """Note that nothing is being done for a connection."""
        if transport in self.open and transport not in self._for_probes:
            self._silent[transport] = None

    def mark_busy(self, transport: asyncio.BaseTransport) -> None:
        """Note that a connection has sent a whole head."""
        self._silent.pop(transport, None)

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that has ended."""
        self.open.discard(transport)
        self._silent.pop(transport, None)
        self._for_probes.pop(transport, None)


OPEN_CONNECTIONS = ConnectionTable()


def _abort(transport: asyncio.BaseTransport) -> None:
    if isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "abort"):
        transport.abort()  # uvloop's transports have it, but are not asyncio.WriteTransports
