"""Whether a port can be listened on."""

import socket


def check_free(host: str, port: int) -> None:
    """Raise the `OSError` that keeps a server from listening there, if any.

    Asked before a server is started: it would say so later, in words of its own, or try for long.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of a name's addresses, servers take the one of IPv4.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
