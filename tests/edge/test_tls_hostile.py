"""Conn against what no TLS peer would send: a TlsError that says what happened, again on each further call, no more."""

import random
import socket

import pytest

from edge import tls
from tests import tls_corrupt
from tests.edge.tls_peers import Thread, client_config, connected, pair, server_config, sockets

KINDS = (tls.AlertSent, tls.AlertReceived, tls.UnexpectedEOF)


def fault_of(conn):
    """The TlsError that a connection ends with; every further call raises it again, and closing raises nothing."""
    with pytest.raises(tls.TlsError) as first:
        while conn.read(65536):
            pass
    error = first.value
    assert isinstance(error, KINDS), error
    if isinstance(error, tls.AlertError):
        assert error.alert
        assert error.description >= 0
        assert error.alert in str(error)
        assert error.alert != "internal_error"
    if isinstance(error, tls.AlertSent):
        assert error.reason
        assert error.reason in str(error)
    calls = [conn.read, lambda: conn.write(b"x"), conn.close_write]
    if not conn.connection_state().handshake_complete:
        calls += [conn.handshake, conn.confirm_handshake]
    for call in calls:
        with pytest.raises(tls.TlsError) as again:
            call()
        assert type(again.value) is type(error)
    conn.close()
    return error


def serve(data):
    """What a server makes of these bytes, after which the client's side ends."""
    with sockets() as (a, b):
        a.sendall(data)
        a.shutdown(socket.SHUT_WR)
        return fault_of(tls.server(b, server_config()))


def test_each_fault_of_a_client_hello():
    for what, body, name in tls_corrupt.faults():
        error = serve(tls_corrupt.record(tls_corrupt.handshake(1, body)))
        assert isinstance(error, tls.AlertSent), what
        assert error.alert == name, what


def test_malformed_client_hellos():
    kinds = {type(serve(data)) for data in tls_corrupt.malformed_records(150, seed=7)}
    assert {tls.AlertSent, tls.UnexpectedEOF} <= kinds <= set(KINDS)


def test_malformed_answers_of_a_server():
    """A real server's flight, damaged anywhere."""
    with sockets() as (a, b):
        client, server = tls.client(a, client_config(), server_name="localhost"), tls.server(b, server_config())
        client._queue_output()
        hello = b"".join(client._outgoing)
        server._feed(hello)
        b.sendall(b"")
        flight = a.recv(1 << 16)
        client.abort()
    rng = random.Random(5)
    for _ in range(100):
        with sockets() as (a, b):
            b.sendall(tls_corrupt.mutate(flight, rng))
            b.shutdown(socket.SHUT_WR)
            fault_of(tls.client(a, client_config(), server_name="localhost"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("role", ["client", "server"])
def test_damaged_records_of_an_established_connection(role, version):
    rng = random.Random(f"{role} {version}")
    for _ in range(12):
        with connected(server=server_config(max_version=version)) as sides:
            conn, peer = sides if role == "client" else sides[::-1]
            peer._connection.send(rng.randbytes(rng.choice([1, 100, 20_000])))
            sealed = peer._connection.take_output()
            at = rng.randrange(len(sealed))
            peer._sock.sendall(sealed[:at] + bytes([sealed[at] ^ 1 << rng.randrange(8)]) + sealed[at + 1 :])
            peer._sock.shutdown(socket.SHUT_WR)
            error = fault_of(conn)
            if isinstance(error, tls.AlertSent):  # and the peer learns of it
                assert fault_of(peer).alert == error.alert


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_peer_that_resets(role):
    with sockets() as stack:
        stack[0].close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        conn = (
            tls.client(ours, client_config(), server_name="localhost")
            if role == "client"
            else tls.server(ours, server_config())
        )
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with conn, pytest.raises(OSError) as error:  # the socket's own: nothing was said that TLS could judge
            conn.handshake()
        assert isinstance(error.value, ConnectionError | tls.TlsError)


def test_a_peer_that_vanishes_after_half_a_record():
    with connected() as (client, server):
        client._connection.send(b"a whole request")
        client._sock.sendall(client._connection.take_output()[:-3])
        server.settimeout(0.1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                server.read()
        assert server.connection_state().handshake_complete
        client._sock.shutdown(socket.SHUT_WR)
        with pytest.raises(tls.UnexpectedEOF):
            server.read()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_half_a_close_leaves_the_other_half(version):
    with connected(server=server_config(max_version=version)) as (client, server):
        client.close_write()
        assert server.read() == b""
        assert server.read() == b""
        for _ in range(3):
            server.write(b"still here" * 1000)
        reader = Thread(lambda: b"".join(iter(client.read, b"")))
        server.close_write()
        assert reader.finish() == b"still here" * 3000
        with pytest.raises(tls.ClosedError):
            client.write(b"x")


def test_a_close_within_the_handshake_is_no_end():
    with pair() as (client, server):
        client._queue_output()
        client._flush(wait=True)
        client._connection.send_close_notify()
        client._queue_output()
        client._flush(wait=True)
        error = fault_of(server)
        assert isinstance(error, tls.AlertReceived)
        assert error.alert == "close_notify"
