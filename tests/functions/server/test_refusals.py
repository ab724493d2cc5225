"""What is not HTTP is answered in the one shape of errors, counted, and not logged."""

import http.client
import json
import signal
import socket

from tests.functions.servers import Start, wait_until

JSON = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


NO_HTTP = [
    b"my-secret\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nmy-secret\r\n\r\n",
    b"GET /my-secret" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: my-secret" + b"a" * 20_000 + b"\r\n\r\n",
    JSON + b"Content-Length: ten\r\n\r\n",
    JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    JSON + b"Content-Length: 2\r\nExpect: my-secret\r\n\r\n{}",
    JSON + b"Transfer-Encoding: chunked\r\n\r\nmy-secret\r\n",
    JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
    JSON + b'Content-Length: 100\r\n\r\n{"prompt": "my-secret"}',
]


def test_what_is_no_http_gets_the_same_shape_and_is_not_logged(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    for data in NO_HTTP:
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.headers["Content-Type"] == "application/json", data[:80]
            error = json.loads(response.read())["error"]
            assert response.status in (400, 414, 417, 431, 505), data[:80]
            assert error["code"] == response.status
            assert response.headers["Connection"] == "close"
            assert "secret" not in error["message"]
    assert server.is_ready()
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=20)
    assert b"secret" not in output
    assert b"Traceback" not in output


def test_what_is_no_http_is_counted_and_logged_with_its_id(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        head = client.recv(65536).partition(b"\r\n\r\n")[0].decode()
    request_id = head.partition("X-Request-Id: ")[2].partition("\r\n")[0]
    assert len(request_id) == 32
    counted = 'pibloom_requests_total{code="400",method="other",path="other"} 1'
    connection = server.connect()
    connection.request("GET", "/metrics")
    assert counted in connection.getresponse().read().decode().splitlines()
    server.process.kill()
    assert server.process.stdout is not None
    assert request_id in server.process.stdout.read().decode()
