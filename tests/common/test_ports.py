"""Whether a port can be listened on."""

import errno
import socket

import pytest

from common import ports


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_is_free_until_somebody_listens(host: str) -> None:
    with socket.socket() as taken:
        taken.bind((host, 0))
        port = taken.getsockname()[1]
        taken.listen()
        with pytest.raises(OSError) as problem:  # noqa: PT011
            ports.check_free(host, port)
        assert problem.value.errno == errno.EADDRINUSE
    ports.check_free(host, port)


def test_a_host_that_is_not_here_is_said() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(OSError) as problem:  # noqa: PT011
            ports.check_free(host, 1024)
        assert problem.value.strerror
