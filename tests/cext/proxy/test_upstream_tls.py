"""TLS towards servers: what is spoken, what is not trusted, and ends that may be anyone's."""

import contextlib
import socket
import ssl
import threading
import time

import pytest
from cext.tls.config import ClientConfig
from cryptography.hazmat.primitives import serialization

from tests.cext.proxy.harness import Backend, Client, Edge, echo, get, post, reply, serving, until
from tests.cext.tls.peer import certified, credential


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    certificate, key = certified()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = tmp_path_factory.mktemp("pki") / "server.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return pem


def context(files, version=None, alpn=()):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(files)
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


def secure(backend, **config):
    """Settings of an edge that speaks TLS with one backend."""
    config.setdefault("server_name", "example.com")
    return {"pool": {"tls": [ClientConfig(alpn=(b"http/1.1",), **config)]}}


@contextlib.contextmanager
def behind_tls(script, files, *, version=None, alpn=(), config=None, **settings):
    backend = Backend(script, tls=context(files, version, alpn))
    pool = {**secure(backend, **(config or {}))["pool"], **settings.pop("pool", {})}
    with serving(backend, pool=pool, **settings) as edge:
        edge.backend = backend
        yield edge


def last_entry(edge):
    edge.until_idle()
    edge.stop()
    return edge.log()[-1]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_share_a_connection(files, version):
    with behind_tls(echo, files, version=version) as edge, Client(edge) as client:
        for n in range(5):
            assert client.ask(post(b"x" * n, f"/{n}")).body == f"POST /{n} ".encode() + b"x" * n
        assert edge.counters()["upstream_connects"] == 1
        assert edge.counters()["upstream_reuses"] == 4


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(files, version):
    resumed = []

    def one_each(conn):
        resumed.append(conn.sock.session_reused)
        conn.request()
        conn.send(reply(b"ok", fields=["Connection: close"]))
        conn.sock.unwrap()

    with behind_tls(one_each, files, version=version) as edge, Client(edge) as client:
        for _ in range(3):
            assert client.ask(get()).status == 200
    assert resumed == [False, True, True]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_large_bodies_both_ways(files, framing):
    body = bytes(range(256)) * 8192         # 2 MiB

    def answer(conn):
        got = conn.request().body
        if framing == "length":
            conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(got)}\r\n\r\n".encode() + got)
        elif framing == "chunked":
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(got), 10000):
                part = got[at:at + 10000]
                conn.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            conn.send(b"0\r\nX-Sum: 1\r\n\r\n")
        else:
            conn.send(b"HTTP/1.1 200 OK\r\n\r\n" + got)
            conn.sock.unwrap()

    with behind_tls(answer, files) as edge, Client(edge) as client:
        response = client.ask(post(body))
        assert response.body == body
        assert response.trailers == (b"X-Sum: 1\r\n" if framing == "chunked" else b"")


def test_a_body_until_the_end_must_end_by_close_notify(files):
    def cut(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        socket.socket(fileno=conn.sock.detach()).close()

    with behind_tls(cut, files) as edge, Client(edge) as client:
        client.send(get())
        with pytest.raises((EOFError, ssl.SSLError)):
            client.response()
        assert last_entry(edge)["error"] == "upstream closed"
        assert any("TLS: ended without close_notify" in text for _, text in edge.errors)


def test_a_head_in_many_records(files):
    def dribble(conn):
        conn.request()
        for byte in reply(b"in small pieces"):
            conn.send(bytes([byte]))

    with behind_tls(dribble, files) as edge, Client(edge) as client:
        assert client.ask(get()).body == b"in small pieces"


def test_what_is_not_trusted(files):
    heard = []

    def distrust(chain, name):
        heard.append((len(chain), name))
        raise ValueError("nobody knows it")

    with behind_tls(echo, files, config={"verify": distrust}) as edge, Client(edge) as client:
        response = client.ask(get())
        assert response.status == 502
        assert response.body == b"The service could not be reached as it should be.\n"
        client.close()
        entry = last_entry(edge)
        assert entry["error"] == "upstream handshake failed"
        (told,) = [text for _, text in edge.errors if "handshake" in text]
        assert f"upstream app 127.0.0.1:{edge.backend.address[2]}: handshake (TLS: " in told
        assert "nobody knows it" in told
    assert heard == [(1, b"example.com")]


def test_a_server_without_tls(files):
    def plain(conn):
        conn.sock.recv(1000)
        conn.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    backend = Backend(plain)
    with serving(backend, **secure(backend)) as edge, Client(edge) as client:
        assert client.ask(get()).status == 502
        assert any("handshake (TLS: " in text for _, text in edge.errors)


def test_a_server_that_closes_within_the_handshake(files):
    backend = Backend(lambda conn: conn.sock.recv(4000))
    with serving(backend, **secure(backend)) as edge, Client(edge) as client:
        assert client.ask(get()).status == 502
        assert any("handshake (TLS: closed during the handshake)" in text for _, text in edge.errors)


def test_an_alert_of_the_server(files):
    """It wants a version that we do not speak with it."""
    with behind_tls(echo, files, version=ssl.TLSVersion.TLSv1_2, config={"min_version": 0x0304}) as edge:
        edge.backend.failures.clear()
        with Client(edge) as client:
            assert client.ask(get()).status == 502
        assert any("protocol_version" in text for _, text in edge.errors)


def test_the_connect_timeout_covers_the_handshake(files):
    backend = Backend(lambda conn: time.sleep(0.6))
    with serving(backend, connect_ms=200, **secure(backend)) as edge, Client(edge) as client:
        start = time.monotonic()
        assert client.ask(get()).status == 504
        assert 0.15 < time.monotonic() - start < 0.6
        client.close()
        assert last_entry(edge)["error"] == "timeout: connect"


def test_another_server_is_asked(files):
    broken, good = Backend(lambda conn: conn.sock.recv(10)), Backend(echo, tls=context(files))
    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",))
    with serving(broken, good, pool={"tls": [config, config]}) as edge, Client(edge) as client:
        for n in range(4):
            assert client.ask(post(b"once", f"/{n}")).status == 200


def test_tickets_on_an_idle_connection_are_no_fault(files):
    """What TLS says by itself between two responses: a session ticket, and a close_notify, which ends it."""
    go = threading.Event()

    def answer(conn):
        conn.request()
        conn.send(reply(b"one"))
        conn.request()
        conn.send(reply(b"two"))
        conn.sock.unwrap()
        go.set()

    with behind_tls(answer, files) as edge, Client(edge) as client:
        assert client.ask(get()).body == b"one"
        time.sleep(0.05)
        assert client.ask(get()).body == b"two"
        assert edge.counters()["upstream_connects"] == 1
        assert go.wait(5)
        until(lambda: edge.call(edge.group.idle_connections) == 0)


def test_a_certificate_is_shown(files):
    shown = []

    def look(conn):
        shown.append(conn.sock.getpeercert(binary_form=True))
        echo(conn)

    certificate, _ = certified("ecdsa-p256", "example.com")
    asking = context(files)
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.load_verify_locations(cadata=certificate.public_bytes(serialization.Encoding.DER))
    backend = Backend(look, tls=asking)
    with serving(backend, **secure(backend, credentials=[credential()])) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200, edge.errors
    assert shown == [certificate.public_bytes(serialization.Encoding.DER)]


def test_a_damaged_record_ends_the_response(files):
    """The alert goes out, the client sees a cut, and the reason is told."""
    def spoil(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegin")
        time.sleep(0.05)
        raw = socket.socket(fileno=conn.sock.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.recv(1000)
        raw.close()

    with behind_tls(spoil, files) as edge, Client(edge) as client:
        client.send(get())
        with pytest.raises((EOFError, ssl.SSLError)):
            client.response()
        edge.until_idle()
        assert any("bad_record_mac" in text for _, text in edge.errors)


def test_a_slow_client_holds_up_the_server(files):
    """Backpressure through TLS: what waits is bounded."""
    sent = []

    def flood(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
        conn.sock.settimeout(0.3)
        try:
            for _ in range(4000):
                conn.send(bytes(10000))
                sent.append(10000)
        except (TimeoutError, ssl.SSLError):
            pass

    with behind_tls(flood, files, send_buffer=65536) as edge, Client(edge, receive_buffer=65536) as client:
        client.send(get())
        client.head()
        until(lambda: sent)
        time.sleep(0.5)
        assert edge.chunks_in_use() * 16384 < 2 << 20
        assert sum(sent) < 20_000_000


def test_the_pool_gives_everything_back(files):
    edge = Edge(Backend(echo, tls=context(files)).address,
                pool={"tls": [ClientConfig(server_name="example.com", alpn=(b"http/1.1",))]})
    with Client(edge) as client:
        assert client.ask(get()).status == 200
    edge.until_idle()
    edge.close()
