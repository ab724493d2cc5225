"""Ports for the servers that tests start."""

import itertools
import os
import socket

# Each process of pytest-xdist has ports of its own, below those that the system gives to clients
# (/proc/sys/net/ipv4/ip_local_port_range), so that nobody takes one before its server does.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SIZE = 2000
_FIRST = 12_000 + _WORKER % 8 * _SIZE
_next = itertools.count(os.getpid())


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on, another one each time."""
    for _ in range(_SIZE):
        port = _FIRST + next(_next) % _SIZE
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
