"""Conn: handshake, data and ends, with our own engine and with OpenSSL's as peers."""

import datetime
import itertools
import os
import socket
import ssl
import threading
import time

import pytest
import trustme

from edge import tls
from tests.edge.tls_peers import (
    PATIENCE,
    Thread,
    authority,
    certificate,
    client_config,
    connected,
    echo,
    issue,
    localhost,
    openssl_context,
    pair,
    server_config,
    sockets,
)

# --- data


def test_the_first_write_shakes_hands():
    with pair() as (client, server):
        thread = Thread(echo, server)
        assert client.write(b"hello") == 5
        assert client.read() == b"HELLO"
        client.close_write()
        assert client.read() == b""
        thread.finish()


@pytest.mark.parametrize("n", [0, 1, 16384, 16385, 131072, 131073, 1_000_000])
def test_every_length_arrives_whole(n):
    sent = os.urandom(n)
    with connected() as (client, server):
        thread = Thread(lambda: (server.write(sent), server.close_write()))
        got = b"".join(iter(client.read, b""))
        thread.finish()
    assert got == sent


def test_read_gives_no_more_than_it_is_asked_for():
    with connected() as (client, server):
        server.write(b"abcdef")
        assert client.read(0) == b""
        assert [client.read(4), client.read(1)] == [b"abcd", b"e"]
        assert client.pending() == 1
        buffer = bytearray(3)
        assert client.readinto(buffer) == 1
        assert bytes(buffer) == b"f\0\0"
        with pytest.raises(ValueError, match="negative"):
            client.read(-1)


def test_write_takes_any_bytes():
    with connected() as (client, server):
        for data in (bytearray(b"ab"), memoryview(b"cd"), memoryview(bytes(range(8))).cast("I")):
            assert client.write(data) == len(bytes(data))
            assert server.read() == bytes(data)


def test_key_updates_pass_unseen():
    with connected() as (client, server):
        client.request_key_update()
        client.write(b"under new keys")
        assert server.read() == b"under new keys"
        server.write(b"and back")
        assert client.read() == b"and back"


# --- peers that are not ours


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("groups", [("x25519",), ("secp256r1",), ("secp384r1", "x25519")])
def test_with_openssl_as_client(groups, version):
    context = openssl_context("client", maximum_version=VERSIONS[version])
    context.set_alpn_protocols(["b"])
    with sockets() as (a, b):
        server = tls.server(b, server_config(next_protos=["a", "b"], groups=groups))
        thread = Thread(echo, server)
        with context.wrap_socket(a, server_hostname="localhost", suppress_ragged_eofs=False) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            assert client.version() == f"TLSv{version}"
            assert client.selected_alpn_protocol() == "b"
            client.unwrap()
        thread.finish()
    state = server.connection_state()
    assert (state.version, state.alpn, state.server_name) == (f"TLSv{version}", "b", "localhost")
    retried = version == "1.3" and "x25519" not in groups  # it sends a share of x25519 alone
    assert state.hello_retried is retried
    assert state.group in groups


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_with_openssl_as_server(kind, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = VERSIONS[version]
    leaf = issue("localhost", kind=kind)
    leaf.configure_cert(context)
    context.set_alpn_protocols(["x"])

    def serve(sock):
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as server:
            server.sendall(server.recv(100).upper())
            assert server.recv(100) == b""

    with sockets() as (a, b):
        thread = Thread(serve, b)
        with tls.client(a, client_config(next_protos=["x"]), server_name="localhost") as client:
            client.write(b"hello")
            assert client.read() == b"HELLO"
            state = client.connection_state()
        thread.finish()
    assert state.handshake_complete and state.handshake_confirmed
    assert (state.alpn, state.server_name) == ("x", "localhost")
    assert state.version == f"TLSv{version}"
    assert state.cipher_suite.startswith("TLS_")
    assert len(state.peer_certificates) == len(leaf.cert_chain_pems)
    assert (state.resumed, state.early_data_used) == (False, False)


@pytest.mark.parametrize("role", ["client", "server"])
def test_versions_out_of_bounds_are_refused(role):
    old, new = {"max_version": "1.2"}, {"min_version": "1.3"}
    server, client = (old, new) if role == "client" else (new, old)
    with pair(server=server_config(**server), client=client_config(**client)) as (a, b):
        thread = Thread(b.handshake)
        with pytest.raises(tls.TlsError):
            a.handshake()
        with pytest.raises(tls.TlsError, match="protocol_version"):
            thread.finish()


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_carry_data_and_end(version):
    with connected(server=server_config(min_version=version, max_version=version)) as (client, server):
        assert client.connection_state().version == server.connection_state().version == f"TLSv{version}"
        thread = Thread(echo, server)
        client.write(b"x" * 100_000)
        client.close_write()
        assert b"".join(iter(client.read, b"")) == b"X" * 100_000
        thread.finish()


# --- trust


def test_an_address_is_verified_too():
    with pair(server_name="127.0.0.1") as (client, server):
        thread = Thread(server.handshake)
        client.handshake()
        thread.finish()
        assert server.connection_state().server_name == "", "an address is not sent (RFC 6066, section 3)"


NOW = datetime.datetime.now(datetime.UTC)

DISTRUSTED = {
    "another name": (lambda: certificate("example.com"), "bad_certificate"),
    "another authority": (lambda: certificate("localhost", ca=trustme.CA()), "unknown_ca"),
    "expired": (
        lambda: certificate("localhost", not_before=NOW - datetime.timedelta(9), not_after=NOW - datetime.timedelta(1)),
        "certificate_expired",
    ),
    "not yet valid": (
        lambda: certificate("localhost", not_before=NOW + datetime.timedelta(1)),
        "bad_certificate",
    ),
}


@pytest.mark.parametrize("fault", DISTRUSTED)
def test_a_certificate_is_distrusted(fault):
    make, alert = DISTRUSTED[fault]
    with pair(server=server_config(certificates=[make()])) as (client, server):
        thread = Thread(server.handshake)
        with pytest.raises(tls.CertificateError) as error:
            client.handshake()
        assert error.value.alert == alert
        assert str(error.value).count(alert) == 1, "said once"
        assert isinstance(error.value.__cause__, tls.Refuse)
        with pytest.raises(tls.AlertReceived) as received:
            thread.finish()
        assert received.value.alert == alert
        assert isinstance(received.value, OSError)
        for again in (client.handshake, client.read, lambda: client.write(b"x"), client.close_write):
            with pytest.raises(tls.CertificateError):
                again()


def test_a_client_certificate_is_no_servers(tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    ca = x509.load_pem_x509_certificate(authority().cert_pem.bytes())
    ca_key = load_pem_private_key(authority().private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - datetime.timedelta(1))
        .not_valid_after(NOW + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ours = tls.Certificate(chain=[leaf.public_bytes(Encoding.DER)], private_key=key)
    with pair(server=server_config(certificates=[ours])) as (client, server):
        thread = Thread(server.handshake)
        with pytest.raises(tls.CertificateError, match="another purpose"):
            client.handshake()
        with pytest.raises(tls.AlertReceived):
            thread.finish()


def test_verify_decides_instead():
    asked = []

    def verify(chain, name):
        asked.append((chain, name))
        if len(asked) > 1:
            raise tls.Refuse("certificate_revoked", "since yesterday")

    config = tls.Config(verify=verify)
    with connected(client=config) as (client, _):
        assert asked == [(client.connection_state().peer_certificates, "localhost")]
    with pair(client=config) as (client, server):
        thread = Thread(server.handshake)
        with pytest.raises(tls.CertificateError) as error:
            client.handshake()
        assert (error.value.alert, str(error.value.__cause__)) == (
            "certificate_revoked",
            "certificate_revoked: since yesterday",
        )
        assert str(error.value) == "certificate_revoked: the certificate is not trusted: since yesterday"
        with pytest.raises(tls.AlertReceived):
            thread.finish()


def test_verification_can_be_left_out():
    with connected(client=tls.Config(verify=False), server_name="") as (client, _):
        assert client.connection_state().peer_certificates == tuple(localhost().chain)


def test_without_a_name_there_is_nothing_to_verify():
    with sockets() as (a, _), pytest.raises(ValueError, match="server_name"):
        tls.client(a, client_config())


def test_the_systems_roots_can_be_named(tmp_path, monkeypatch):
    from edge.tls import verify

    authority().cert_pem.write_to_path(tmp_path / "roots.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    verify.system_store.cache_clear()
    try:
        with connected(client=tls.Config()):
            pass
    finally:
        verify.system_store.cache_clear()


# --- the ways it ends


def test_a_cut_is_not_an_end():
    with connected() as (client, server):
        server.write(b"the beginning")
        assert client.read() == b"the beginning"
        server._sock.close()
        for _ in range(2):
            with pytest.raises(tls.UnexpectedEOF):
                client.read()


def test_a_cut_during_the_handshake():
    with sockets() as (a, b):
        client = tls.client(a, client_config(), server_name="localhost")
        b.close()
        with pytest.raises((tls.UnexpectedEOF, BrokenPipeError, ConnectionResetError)):
            client.handshake()


def test_each_side_closes_its_own():
    with connected() as (client, server):
        client.close_write()
        client.close_write()
        assert server.read() == server.read() == b""
        server.write(b"still here")
        assert client.read() == b"still here"
        with pytest.raises(tls.ClosedError):
            client.write(b"no")
        server.close()
        assert client.read() == b""


def test_nothing_works_after_close():
    with connected() as (client, server):
        client.close()
        client.close()
        for call in (client.read, client.makefile, client.close_write, lambda: client.write(b"x")):
            with pytest.raises(tls.ClosedError):
                call()
        assert client._sock.fileno() == -1
        assert server.read() == b""


def test_a_faulty_record_is_answered_with_its_alert():
    with connected() as (client, server):
        client.write(b"good")
        client._sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert server.read() == b"good"
        with pytest.raises(tls.AlertSent) as sent:
            server.read()
        assert (sent.value.alert, sent.value.description) == ("bad_record_mac", 20)
        with pytest.raises(tls.AlertReceived) as received:
            client.read()
        assert received.value.alert == "bad_record_mac"
        with pytest.raises(tls.AlertSent):
            server.write(b"x")


def test_data_before_a_fault_is_delivered():
    with connected() as (client, server):
        record = client._connection
        record.send(b"good")
        client._sock.sendall(record.take_output() + b"GET / HTTP/1.1\r\n\r\n")
        assert server.read() == b"good"
        with pytest.raises(tls.AlertSent):
            server.read()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff", bytes(64)])
def test_what_is_not_tls_is_refused(noise):
    with sockets() as (a, b):
        server = tls.server(b, server_config())
        a.sendall(noise)
        with pytest.raises(tls.AlertSent):
            server.read()
        assert a.recv(100)[:1] == b"\x15", "an alert"


def test_a_plain_answer_is_refused_by_the_client():
    with sockets() as (a, b):
        client = tls.client(a, client_config(), server_name="localhost")
        b.sendall(b"220 mail.example.com ESMTP\r\n")
        with pytest.raises(tls.AlertSent):
            client.handshake()


# --- timeouts


def test_a_read_that_timed_out_can_be_repeated():
    with connected() as (client, server):
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.read()
        server.write(b"late")
        assert client.read() == b"late"
        assert client.gettimeout() == client.timeout == 0.05
        with pytest.raises(ValueError, match="non-blocking"):
            client.settimeout(0)


def test_a_handshake_that_timed_out_can_be_repeated():
    with pair() as (client, server):
        client.settimeout(0.05)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                client.handshake()
        thread = Thread(server.handshake)
        client.settimeout(PATIENCE)
        client.handshake()
        thread.finish()


def test_half_a_record_survives_a_timeout():
    with connected() as (client, server):
        server._connection.send(b"in two halves")
        record = server._connection.take_output()
        server._sock.sendall(record[:10])
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.read()
        server._sock.sendall(record[10:])
        assert client.read() == b"in two halves"


def test_after_a_write_timed_out_nothing_can_be_written():
    with connected() as (client, server):
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.write(bytes(10_000_000))
        with pytest.raises(tls.TlsError, match="earlier write") as error:
            client.write(b"x")
        assert isinstance(error.value.__cause__, TimeoutError)
        server.write(b"but reading goes on")
        assert client.read() == b"but reading goes on"
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 1


# --- transports that are no sockets


class Pipe:
    """recv and sendall, and nothing else."""

    def __init__(self, sock):
        self.recv = lambda n: sock.recv(1)  # byte by byte, while we are at it
        self.sendall = sock.sendall


def test_recv_and_sendall_are_enough():
    with sockets() as (a, b):
        client = tls.client(Pipe(a), client_config(), server_name="localhost")
        thread = Thread(echo, tls.server(Pipe(b), server_config()))
        client.write(b"hello")
        assert client.read() == b"HELLO"
        client.close_write()
        assert client.read() == b""
        thread.finish()
        client.close()


# --- configurations


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"certificates": ["x"]}, "certificates"),
        ({"min_version": "1.1"}, "min_version"),
        ({"max_version": "2"}, "max_version"),
        ({"min_version": "1.3", "max_version": "1.2"}, "below"),
        ({"groups": ["x25519", "x448"]}, "x448"),
        ({"groups": []}, "group"),
        ({"next_protos": "h2"}, "next_protos"),
        ({"next_protos": [""]}, "ALPN"),
        ({"verify": 1}, "verify"),
        ({"root_cas": []}, "root_cas"),
    ],
)
def test_a_configuration_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        tls.Config(**options)


def test_a_server_needs_a_certificate():
    with sockets() as (a, _), pytest.raises(ValueError, match="certificates"):
        tls.server(a, tls.Config())


def test_a_certificate_needs_its_own_key():
    one, other = issue("localhost"), issue("localhost")
    from tests.edge.tls_peers import chain_of

    with pytest.raises(ValueError, match="not the one of the chain's first"):
        tls.Certificate(chain=chain_of(one), private_key=other.private_key_pem.bytes())
    for key in (None, 7, "PEM"):
        with pytest.raises(ValueError, match="private_key"):
            tls.Certificate(chain=chain_of(one), private_key=key)
    with pytest.raises(ValueError, match="at least one"):
        tls.Certificate(chain=[], private_key=b"")


def test_a_certificate_is_read_from_files(tmp_path):
    leaf = issue("localhost", "*.example.com")
    (tmp_path / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    loaded = tls.Certificate.load(tmp_path / "chain.pem", tmp_path / "key.pem")
    assert loaded.names == ("localhost", "*.example.com")
    assert "PRIVATE" not in repr(loaded)
    with connected(server=server_config(certificates=[loaded])):
        pass


def test_certificates_are_chosen_by_name():
    certificates = [certificate(name) for name in ("a.example", "b.example")]
    config = server_config(certificates=certificates)
    for name, expected in zip(("b.example", "a.example"), reversed(certificates), strict=True):
        with connected(server=config, server_name=name) as (client, _):
            assert client.connection_state().peer_certificates == tuple(expected.chain)


def test_the_state_before_the_handshake():
    with pair() as (client, server):
        for conn in (client, server):
            state = conn.connection_state()
            assert not state.handshake_complete and not state.handshake_confirmed
            assert (state.version, state.cipher_suite, state.alpn) == ("", "", "")


def test_many_threads_may_start_the_handshake():
    with pair() as (client, server):
        threads = [Thread(side.handshake) for side in itertools.repeat(client, 4)]
        threads += [Thread(server.handshake) for _ in range(4)]
        for thread in threads:
            thread.finish()


def test_a_closer_wakes_a_reader_and_a_writer():
    with connected() as (client, _):
        started = threading.Event()

        def write():
            started.set()
            while True:
                client.write(bytes(1 << 20))

        reader, writer = Thread(client.read), Thread(write)
        started.wait()
        time.sleep(0.05)
        client.close()
        for thread in (reader, writer):
            with pytest.raises(tls.ClosedError):
                thread.finish()
        assert client._sock.fileno() == -1, "the last to leave closes"


def test_a_closer_wakes_a_handshake():
    with pair() as (client, _):
        threads = [Thread(client.handshake), Thread(client.read), Thread(client.write, b"x")]
        time.sleep(0.05)
        client.close()
        for thread in threads:
            with pytest.raises(tls.ClosedError):
                thread.finish()


def test_an_open_descriptor_is_never_closed_under_a_reader():
    """Its number could be a stranger's by the time the reader gets there."""
    with connected() as (client, _):
        number = client.fileno()
        reader = Thread(client.read)
        time.sleep(0.05)
        client._closed = True  # what a closer does first
        client._callers += 1
        client._leave()
        assert client._sock.fileno() == number
        client._sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(tls.ClosedError):
            reader.finish()
        assert client._sock.fileno() == -1
