"""The access log's fields, and the error log's account of handshakes that failed."""

import datetime
import json
import socket
import ssl
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import wait_until

ALWAYS = {"time", "client", "client_port", "tls", "cipher", "group", "method", "host", "path", "status", "bytes_in",
          "bytes_out", "duration_ms"}  # fmt: skip
PROXIED = {"first_byte_ms", "connect_ms", "upstream", "reused"}


def test_a_request_has_every_field(edge, scripted):
    context = edge.tls_context()
    context.set_alpn_protocols(["http/1.1"])
    before = datetime.datetime.now(datetime.UTC)
    with Client(edge, context=context) as client:
        head = b"POST /s/ok?logged HTTP/1.1\r\nHost: edge.test:1234\r\nContent-Length: 5\r\n\r\n"
        client.send(head + b"hello")
        response = client.response()
        port, cipher = client.port, client.sock.cipher()[0]
    record = edge.wait_request(path="/s/ok?logged")
    assert ALWAYS | PROXIED | {"sni", "alpn"} <= set(record)
    group = "x25519mlkem768" if ssl.OPENSSL_VERSION_INFO >= (3, 5) else "x25519"
    wanted = {"client": "127.0.0.1", "client_port": port, "tls": "TLSv1.3", "cipher": cipher, "group": group,
              "sni": "edge.test", "alpn": "http/1.1", "method": "POST", "host": "edge.test:1234", "status": 200,
              "bytes_in": len(head) + 5, "upstream": scripted.server}  # fmt: skip
    assert {key: record[key] for key in wanted} == wanted
    assert isinstance(record["reused"], bool)
    assert 0 <= record["connect_ms"] <= record["first_byte_ms"] <= record["duration_ms"] < 5000
    told = datetime.datetime.fromisoformat(record["time"])
    assert abs(told - before) < datetime.timedelta(seconds=5)
    # Head and body as they went to the client.
    sent = len(f"{response.version} {response.status} {response.reason}\r\n".encode()) + 2 + len(response.body)
    sent += sum(len(f"{name}: {value}\r\n".encode("latin-1")) for name, value in response.fields)
    assert record["bytes_out"] == sent


def test_what_is_not_known_is_left_out(edge):
    context = edge.tls_context()
    context.check_hostname = False
    with Client(edge, name=None, context=context) as client:
        client.get("/s/ok?plain")
    record = edge.wait_request(path="/s/ok?plain")
    assert record["status"] == 200, record
    assert set(record) == ALWAYS | PROXIED


def test_bytes_of_large_and_chunked_bodies(edge):
    with Client(edge) as client:
        client.get("/10m?counted")
        client.get("/chunked/10m?counted")
        client.request("HEAD", "/10m?head")
    assert 10 << 20 < edge.wait_request(path="/10m?counted")["bytes_out"] < (10 << 20) + 1000
    assert 10 << 20 < edge.wait_request(path="/chunked/10m?counted")["bytes_out"] < (10 << 20) + 50_000
    assert edge.wait_request(path="/10m?head")["bytes_out"] < 1000


def test_lines_cannot_be_forged(edge):
    """Quotes, backslashes and bytes of any value stay inside their JSON string."""
    path = '/s/ok?"\\","status":999,"x":"<>|{}^`'
    with Client(edge) as client:
        client.get(path)
    assert edge.wait_request(path=path)["status"] == 200


def test_every_line_is_an_object(edge):
    with Client(edge) as client:
        client.get("/s/ok?last")
    edge.wait_request(path="/s/ok?last")
    for line in edge.access_log.read_text().splitlines():
        record = json.loads(line)
        assert {"time", "client", "status"} <= set(record)


def test_lines_appear_soon_and_survive_the_end(make_edge, backend):
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        begin = time.monotonic()
        client.get("/ok?1")
        edge.wait_request(path="/ok?1")
        assert time.monotonic() - begin < 2
        client.get("/ok?2")
    edge.process.popen.terminate()
    assert edge.process.popen.wait(10) == 0
    assert len(edge.requests(path="/ok?2")) == 1


def test_many_lines_by_several_workers(edge):
    """No line is lost, and none mixes with another."""
    clients = [Client(edge) for _ in range(12)]
    for i in range(100):
        for n, client in enumerate(clients):
            client.send(f"GET /s/ok?many{n}-{i} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
        for client in clients:
            client.response()
    for client in clients:
        client.close()
    wanted = {f"/s/ok?many{n}-{i}" for n in range(12) for i in range(100)}
    wait_until(lambda: wanted <= {r.get("path") for r in edge.requests()}, 20, "all lines")


# The error log.


def failed(edge, since: int, cause: str) -> None:
    edge.wait_error(rf"127\.0\.0\.1:\d+: handshake failed: .*{cause}", since)


def test_plain_http_is_named(edge):
    since = edge.mark()
    with socket.create_connection(("127.0.0.1", edge.port), 5) as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        s.recv(100)
    failed(edge, since, "unexpected_message")


def test_an_old_client_is_named(make_edge, backend):
    edge = make_edge({"b": [backend.server]}, tls={"min_version": "1.3"})
    since = edge.mark()
    context = edge.tls_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Client(edge, context=context)
    failed(edge, since, "protocol_version")


def test_a_client_that_distrusts_is_named(edge):
    since = edge.mark()
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(edge, context=ssl.create_default_context())
    failed(edge, since, "unknown_ca")


def test_a_client_that_breaks_off_is_named(edge):
    since = edge.mark()
    with socket.create_connection(("127.0.0.1", edge.port), 5) as s:
        s.sendall(b"\x16\x03\x01\x00\xff\x01")
    failed(edge, since, "closed by the client")


def test_a_bare_connect_is_no_failure_worth_a_line(edge):
    """Health checks of load balancers do that, all day."""
    since = edge.mark()
    with socket.create_connection(("127.0.0.1", edge.port), 5):
        pass
    time.sleep(1.5)  # TCP_DEFER_ACCEPT holds it back
    assert not [m for level, m in edge.errors(since) if level != "debug" and "handshake failed" in m]


def test_the_error_log_cannot_be_forged(edge, scripted):
    """A line of the log is one event, whatever a client put into its request."""
    scripted.on("/s/broken*", lambda c, r: False)
    since = edge.mark()
    path = "/s/broken'%0a2026-01-01T00:00:00.000Z error [1] forged"
    path = path.replace(" ", "%20")
    with Client(edge) as client:
        assert client.get(path).status == 502
    edge.wait_error("/s/broken", since)
    lines = edge.error_log.read_bytes()[since:].decode().splitlines()
    assert not any(line.startswith("2026-01-01") for line in lines)
