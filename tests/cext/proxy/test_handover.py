"""Connections handed over to other processes: all that came goes with them, and nothing stays."""

import contextlib
import socket
import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from edge import handoff
from tests.cext.proxy.example import beside
from tests.cext.proxy.handing import connected, descriptors, gate, receiver, receiving
from tests.cext.proxy.harness import (
    SECONDS,
    Client,
    H2Client,
    client_context,
    echo,
    get,
    post,
    serving,
    until,
)
from tests.cext.tls.peer import HANDSHAKE, certified, client_hello, extension, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "receiver.sock"


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Of a receiver that uses ssl."""
    certificate, key = certified()
    file = tmp_path_factory.mktemp("pem") / "both.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(file)
    return made


def hello(name="example.com", *extra, **options):
    options.setdefault("entries", [])
    return client_hello(name=name or "", omit=() if name else (0,), extra=extra, **options)


def handed(connection):
    """What a receiver answers in tests: how much it was given."""
    connection.sock.sendall(b"handed over: %d" % len(connection.data))


def ask(edge, data):
    """The first bytes of the answer."""
    with connected(edge) as client:
        client.sendall(data)
        return client.recv(1000)


# What is handed over.


def test_the_bytes_the_descriptor_and_the_addresses_go_together(path):
    seen = []

    def keep(connection):
        seen.append((connection.data, connection.client, connection.handoff))
        connection.sock.sendall(b"hi, " + connection.sock.recv(100))

    with receiver(path, keep), serving(echo, listener=gate(path)) as edge, connected(edge) as client:
        sent = record(HANDSHAKE, hello()) + b"and what follows"
        client.sendall(sent)
        until(lambda: edge.counters()["handed_over"] == 1)
        assert edge.counters()["connections_open"] == 0
        client.sendall(b"later")
        assert client.recv(100) == b"hi, later"
        (data, address, message), = seen
        assert data == sent
        assert address == client.getsockname()
        assert message.local == client.getpeername()
        assert (message.name, message.proxied, message.tlvs) == ("legacy", False, b"")
        assert edge.counters()["handshake_failures"] == edge.counters()["handoff_failures"] == 0


def test_python_ssl_goes_on_with_the_handshake(path, context):
    def serve(connection):
        tls = beside.TlsConnection(connection, context)
        tls.sendall(b"served by ssl: " + tls.recv())
        tls.close()

    with receiver(path, serve), serving(echo, listener=gate(path)) as edge, Client(edge) as client:
        client.send(b"hello")
        assert client.rest() == b"served by ssl: hello"


@pytest.mark.parametrize("cuts", [1, 7, 100])
def test_a_hello_that_comes_in_pieces_is_whole(path, cuts):
    message = hello("example.com", extension(21, bytes(2000)))       # padding, RFC 7685
    sent = b"".join(record(HANDSHAKE, message[i:i + 700]) for i in range(0, len(message), 700))
    with receiver(path, handed), serving(echo, listener=gate(path)) as edge, connected(edge) as client:
        for i in range(0, len(sent), max(len(sent) // 300, cuts)):
            client.sendall(sent[i:i + max(len(sent) // 300, cuts)])
        assert client.recv(100) == b"handed over: %d" % len(sent)


def test_a_hello_of_tiny_records(path):
    message = hello()
    sent = b"".join(record(HANDSHAKE, message[i:i + 1]) for i in range(len(message)))
    with receiver(path, handed), serving(echo, listener=gate(path)) as edge:
        assert ask(edge, sent) == b"handed over: %d" % len(sent)


@pytest.mark.parametrize(("data", "alert"), [
    (b"GET / HTTP/1.1\r\n\r\n", 70),
    (b"\x16\x03\x01\x00\x00", 10),
    (record(HANDSHAKE, b"\x02\x00\x00\x00"), 10),
    (record(HANDSHAKE, hello()[:4] + hello()[5:] + b"\0"), 50),
    (record(HANDSHAKE, b"\x01\x7f\xff\xff"), 47),
    (b"\x15\x03\x03\x00\x02\x02\x28", None),
], ids=["HTTP", "an empty record", "a ServerHello", "a broken hello", "a huge hello", "an alert"])
def test_what_is_no_hello_is_judged_by_tls_here(path, data, alert):
    with receiver(path, handed), serving(echo, listener=gate(path)) as edge:
        answer = ask(edge, data)
        assert answer[:1] == (b"\x15" if alert else b"")
        edge.until_idle()
        assert edge.counters()["handed_over"] == 0


def test_a_hello_over_the_limit_of_what_is_gathered_is_served_here(path):
    with receiver(path, handed), serving(echo, listener=gate(path)) as edge, connected(edge) as client:
        message = hello("example.com", extension(21, bytes(40000)))
        for i in range(0, len(message), 10000):
            client.sendall(record(HANDSHAKE, message[i:i + 10000]))
        assert client.recv(10)[0] == 22
        assert edge.counters()["handed_over"] == 0


def test_slow_first_bytes_end_with_the_handshake_timeout(path):
    listener = gate(path) | {"handshake_ms": 50}
    with receiver(path, handed), serving(echo, listener=listener) as edge, connected(edge) as client:
        client.sendall(record(HANDSHAKE, hello())[:-1])
        assert client.recv(10) == b""
        edge.until_idle()
        assert edge.counters()["timeouts"] == 1
        assert edge.counters()["handed_over"] == 0


# Rules.

GREASE = 0x2A2A


@pytest.mark.parametrize(("conditions", "data", "matches"), [
    ({"names": [b"example.com"]}, hello("EXAMPLE.com"), True),
    ({"names": [b"example.com"]}, hello("www.example.com"), False),
    ({"names": [b"example.com"]}, hello(None), False),
    ({"names": [b"*.example.com", b"other.test"]}, hello("a.b.example.com"), True),
    ({"names": [b"*.example.com", b"other.test"]}, hello("other.test"), True),
    ({"names": [b"*.example.com"]}, hello("example.com"), False),
    ({"names": [b"*.example.com"]}, hello("badexample.com"), False),
    ({"versions": [0x0304]}, hello(versions=(GREASE, 0x0304, 0x0303)), True),
    ({"versions": [0x0303]}, hello(versions=(GREASE, 0x0304, 0x0303)), False),
    ({"protocols": [b"acme-tls/1"]}, hello(alpn=(b"h2", b"acme-tls/1")), True),
    ({"protocols": [b"acme-tls/1"]}, hello(alpn=(b"h2",)), False),
    ({"protocols": [b"acme-tls/1"]}, hello(), False),
    ({"names": [b"example.com"], "protocols": [b"h2"]}, hello(alpn=(b"h2",)), True),
    ({"names": [b"example.com"], "protocols": [b"h2"]}, hello("other.test", alpn=(b"h2",)), False),
    ({"fingerprints": lambda message: message[0] == 1}, hello(), True),
    ({"fingerprints": lambda message: False}, hello(), False),
    ({"fingerprints": lambda message: 1 // 0}, hello(), False),
])
def test_rules(path, conditions, data, matches):
    with receiver(path, handed), serving(echo, listener=gate(path, **conditions)) as edge:
        answer = ask(edge, record(HANDSHAKE, data))
        assert answer.startswith(b"handed over") is matches
        assert edge.counters()["handed_over"] == matches


def test_clients_of_older_versions_are_told_apart(path):
    """TLS 1.1, which is not spoken here: legacy_version alone."""
    for version in (0x0301, 0x0302, 0x0303):
        old = client_hello(entries=[], omit=(43, 51), legacy_version=version)
        with receiver(path, handed), serving(echo, listener=gate(path, versions=[0x0301, 0x0302])) as edge:
            answer = ask(edge, record(HANDSHAKE, old))
            assert answer.startswith(b"handed over") is (version < 0x0303)


def test_fingerprints_are_asked_for_last(path):
    asked = []
    rule = gate(path, names=[b"example.com"], fingerprints=lambda message: asked.append(message) or True)
    with receiver(path, handed), serving(echo, listener=rule) as edge:
        ask(edge, record(HANDSHAKE, hello("other.test")))
        assert asked == []
        ask(edge, record(HANDSHAKE, hello()))
        assert asked == [hello()]


# Receivers that fail.


@pytest.mark.parametrize("serve", [True, False])
def test_a_receiver_that_is_away(path, serve):
    with serving(echo, listener=gate(path, serve=serve)) as edge:
        for _ in range(3):
            if serve:
                with Client(edge) as client:
                    assert client.ask(get("/here")).body == b"GET /here "
            else:
                assert ask(edge, record(HANDSHAKE, hello())) == b""
        edge.until_idle()
        assert edge.counters()["handoff_failures"] == 3
        told = [text for level, text in edge.errors if level == "warning"]
        assert len(told) == 1
        assert "No such file or directory" in told[0]
        assert ("served here" if serve else "closed") in told[0]


@pytest.mark.parametrize("serve", [True, False])
def test_a_receiver_that_never_reads(path, serve):
    """Its socket takes some, some wait here for a moment, and for the others there is no room."""
    listener = handoff.listen(str(path), 0o600)
    message = record(HANDSHAKE, hello("example.com", extension(21, bytes(9000))))
    with listener, serving(echo, listener=gate(path, serve=serve)) as edge, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(edge)) for _ in range(150)]
        for client in clients:
            client.sendall(message)
        for client in clients[-10:]:
            assert client.recv(1) == (b"\x16" if serve else b"")
        until(lambda: edge.counters()["handed_over"] + edge.counters()["handoff_failures"] == len(clients))
        assert edge.counters()["handed_over"] > 3
        assert edge.counters()["handoff_failures"] >= 64 + 10
        assert edge.counters()["connections_open"] == (edge.counters()["handoff_failures"] if serve else 0)
        assert any("too slow" in text for _, text in edge.errors)
        # What was handed over is there, whenever the receiver comes to it.
        source, _ = listener.accept()
        with source, handoff.receive(source) as connection:
            assert connection.data == message


def test_a_receiver_that_is_slow_gets_them_all(path):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(handoff.listen(str(path), 0o600))
        edge = stack.enter_context(serving(echo, listener=gate(path, patience_ms=60_000) | {"handshake_ms": 60_000}))
        message = record(HANDSHAKE, hello("example.com", extension(21, bytes(9000))))
        clients = [stack.enter_context(connected(edge)) for _ in range(60)]
        for client in clients:
            client.sendall(message)
        listener.settimeout(SECONDS)
        taken = 0
        while taken < len(clients):     # once a connection's are all read, the next may go on another one
            source, _ = listener.accept()
            with source:
                source.settimeout(SECONDS)
                while taken < len(clients) and (connection := handoff.receive(source)) is not None:
                    with connection:
                        connection.sock.sendall(b"x")
                    taken += 1
        assert all(client.recv(1) == b"x" for client in clients)
        until(lambda: edge.counters()["handed_over"] == len(clients))
        assert edge.counters()["handoff_failures"] == 0


def test_clients_that_go_while_they_wait_are_forgotten(path):
    with handoff.listen(str(path), 0o600), serving(echo, listener=gate(path) | {"handshake_ms": 300}) as edge:
        before = descriptors()
        message = record(HANDSHAKE, hello("example.com", extension(21, bytes(9000))))
        clients = [connected(edge) for _ in range(60)]
        for client in clients:
            client.sendall(message)
        until(lambda: edge.counters()["connections"] == 60)
        for client in clients:
            client.close()
        edge.until_idle()
        assert edge.counters()["timeouts"] > 10
        until(lambda: descriptors() <= before + 1)


def test_a_receiver_that_closes_right_away_and_one_that_comes_back(path):
    """Each connection to the receiver is closed by it after one message: the next goes on another."""
    with serving(echo, listener=gate(path)) as edge:
        with receiver(path, handed) as first:
            for _ in range(5):
                assert ask(edge, record(HANDSHAKE, hello())).startswith(b"handed over")
                edge.call(lambda: None)
                for key in list(first._selector.get_map().values()):
                    if key.fileobj is not first._listener:
                        key.fileobj.shutdown(socket.SHUT_RD)
        assert ask(edge, record(HANDSHAKE, hello())) == b""
        with receiver(path, handed):
            assert ask(edge, record(HANDSHAKE, hello())).startswith(b"handed over")
        assert edge.counters()["handed_over"] == 6
        assert edge.counters()["handoff_failures"] == 1


# Limits.


def test_what_is_handed_over_takes_no_place_any_more(path):
    kept = []

    def keep(connection):
        kept.append(socket.socket(fileno=connection.sock.detach()))
        kept[-1].sendall(b"kept")

    with receiver(path, keep), serving(echo, listener=gate(path) | {"max_connections": 1}) as edge:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(connected(edge))
                client.sendall(record(HANDSHAKE, hello()))
                assert client.recv(10) == b"kept"
        assert edge.counters()["connections_over_limit"] == 0
    for sock in kept:
        sock.close()


def test_thousands_leave_no_descriptor_behind(path):
    with receiver(path, handed), serving(echo, listener=gate(path)) as edge:
        number = 10_000
        data = record(HANDSHAKE, hello())
        ask(edge, data)
        before = descriptors()
        for _ in range(number):
            assert ask(edge, data).startswith(b"handed over")
        edge.until_idle()
        assert edge.counters()["handed_over"] == number + 1
        until(lambda: descriptors() <= before + 1)


# From edge to edge.


@pytest.fixture
def two(path):
    """(the one that gives, the one that receives)."""
    with serving(echo) as behind, receiving(behind, path), serving(echo, listener=gate(path)) as front:
        yield front, behind


def test_requests_are_served_by_who_received_the_connection(two):
    front, behind = two
    with Client(front) as client:
        assert client.ask(get("/one")).body == b"GET /one "
        assert client.ask(post(b"x" * 100_000, "/two")).body == b"POST /two " + b"x" * 100_000
        assert behind.counters()["connections_open"] == 1
        host, port = client.sock.getsockname()
    behind.until_idle()
    behind.stop()
    assert [(e["client"], e["client_port"]) for e in behind.log()] == [(host, port)] * 2
    assert front.counters()["handed_over"] == behind.counters()["handoffs_received"] == 1
    assert front.counters()["handshakes"] == 0


def test_http2(two):
    front, behind = two
    with H2Client(front) as client:
        assert client.ask("/h2").body == b"GET /h2 "
    assert behind.counters()["handshakes"] == 1


def test_tls12(two):
    front, _ = two
    context = client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Client(front, context=context) as client:
        assert client.ask(get("/old")).body == b"GET /old "


def test_many_from_edge_to_edge_leave_nothing_behind(two):
    front, behind = two
    before = None
    for _ in range(60):
        with Client(front) as client:
            assert client.ask(get("/one")).status == 200
        if before is None:
            before = descriptors()
    behind.until_idle()
    until(lambda: descriptors() <= before + 2)
    assert behind.counters()["handoffs_refused"] == 0
