"""Python's http.client and ssl as the client."""

import hashlib
import http.client
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import Client


def connect(edge, context=None) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("localhost", edge.port, timeout=20, context=context or edge.tls_context())


def test_keep_alive_over_every_kind_of_body(edge):
    connection = connect(edge)
    for i in range(3):
        connection.request("GET", f"/app/echo?python{i}")
        told = json.loads(connection.getresponse().read())
        assert told["query"] == f"python{i}"
        connection.request("POST", "/app/sha256", body=b"p" * 70_000)
        assert connection.getresponse().read().endswith(b" 70000")
        connection.request("POST", "/app/sha256", body=iter([b"a" * 1000] * 30), encode_chunked=True)
        assert connection.getresponse().read() == hashlib.sha256(b"a" * 30_000).hexdigest().encode() + b" 30000"
        connection.request("GET", "/app/stream?n=4&size=9000")
        assert len(connection.getresponse().read()) == 36_000
        connection.request("HEAD", "/10m")
        assert connection.getresponse().read() == b""
        connection.request("GET", "/app/status/204")
        assert (response := connection.getresponse()).status == 204
        assert response.read() == b""
        connection.request("GET", "/app/status/304")
        assert (response := connection.getresponse()).status == 304
        assert response.read() == b""
    connection.close()
    ports = {edge.wait_request(path=f"/app/echo?python{i}")["client_port"] for i in range(3)}
    assert len(ports) == 1


@pytest.mark.parametrize("status", [200, 201, 301, 400, 403, 404, 418, 500, 503])
def test_statuses_pass(edge, status):
    connection = connect(edge)
    connection.request("GET", f"/app/status/{status}")
    response = connection.getresponse()
    assert (response.status, response.read()) == (status, f"status {status}".encode())
    assert response.headers["Location"] == "/elsewhere"
    connection.close()


def test_the_certificate_is_verified(edge):
    with Client(edge) as client:
        assert client.sock.version() == "TLSv1.3"
        names = [value for kind, value in client.sock.getpeercert()["subjectAltName"] if kind == "DNS"]
        assert "edge.test" in names
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(edge, name="elsewhere.test")


def test_large_bodies_in_parallel(edge, nginx):
    def load(path):
        connection = connect(edge)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return hashlib.sha256(body).hexdigest()

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(load, ["/10m", "/100k", "/1k", "/chunked/10m"] * 3))
    wanted = [nginx.digests[name] for name in ("10m", "100k", "1k", "10m")] * 3
    assert found == wanted


def test_tls_1_2_is_refused(nginx, make_edge):
    edge = make_edge({"nginx": [nginx.server]}, tls={"min_version": "1.3"})
    context = ssl.create_default_context(cafile=edge.pki.ca.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError) as refused:
        Client(edge, context=context)
    assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_alpn(edge):
    context = edge.tls_context()
    context.set_alpn_protocols(["h3", "http/1.1"])
    with Client(edge, context=context) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        client.get("/headers?alpn")
    assert edge.wait_request(path="/headers?alpn")["alpn"] == "http/1.1"


def test_memory_bio_fed_byte_by_byte(edge):
    """A client whose records arrive in the smallest pieces."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = edge.tls_context().wrap_bio(incoming, outgoing, server_hostname="edge.test")
    with socket.create_connection(("127.0.0.1", edge.port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(act):
            while True:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        s.sendall(bytes((byte,)))
                    data = s.recv(65536)
                    if data:
                        incoming.write(data)
                    else:
                        incoming.write_eof()

        exchange(tls.do_handshake)
        tls.write(b"GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
        got = b""
        while data := exchange(lambda: tls.read(65536)):
            got += data
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(got.split(b"\r\n\r\n", 1)[1]) == 1024
