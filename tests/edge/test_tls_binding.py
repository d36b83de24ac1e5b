"""What only the two ends of a connection have: channel bindings and exporters, and new keys when they are asked for."""

import hashlib
import re
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from edge import tls
from edge.tls.binding import end_point
from tests.edge.test_tls_sessions import Resumed, first_session
from tests.edge.tls_peers import (
    Thread,
    authority,
    certificate,
    connected,
    localhost,
    openssl_context,
    pair,
    server_config,
    sockets,
)


def both(sides, kind):
    ours, theirs = (side.channel_binding(kind) for side in sides)
    assert ours == theirs
    return ours


def test_tls_exporter():
    with connected() as sides:
        first = both(sides, "tls-exporter")
        assert len(first) == 32
        assert sides[0].connection_state().unique == first
    with connected() as sides:
        assert both(sides, "tls-exporter") != first


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_openssl_exports_the_same(tmp_path, suite):
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-CAfile"]
        command += [str(tmp_path / "ca.pem"), "-servername", "localhost", "-ciphersuites", suite, "-tls1_3"]
        command += ["-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            accepted, _ = listener.accept()
            accepted.settimeout(10)
            with tls.server(accepted, server_config()) as conn:
                conn.confirm_handshake()
                binding = conn.channel_binding("tls-exporter")
            said, _ = client.communicate("", timeout=10)
    told = re.search(r"Keying material: ([0-9A-F]+)", said)
    assert told, said
    assert bytes.fromhex(told[1]) == binding


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_export(version):
    with connected(server=server_config(max_version=version)) as sides:
        binding = both(sides, "tls-exporter")
        assert len(binding) == 32
        assert binding == sides[0].export_keying_material("EXPORTER-Channel-Binding", b"")
        without, empty, full = (
            {side.export_keying_material("EXPORTER-test", context, 48) for side in sides}
            for context in (None, b"", b"x")
        )
        assert len(without) == len(empty) == len(full) == 1
        assert (without == empty) is (version == "1.3")
        assert full != empty


def test_tls_unique_is_what_openssl_has():
    """Python's ssl gives it for both roles."""
    for session in range(2):
        with sockets() as (a, b):
            context = openssl_context("client", maximum_version=ssl.TLSVersion.TLSv1_2)
            thread = Thread(lambda b=b, context=context: context.wrap_socket(b, server_hostname="localhost"))
            server = tls.server(a, server_config())
            server.handshake()
            theirs = thread.finish().get_channel_binding("tls-unique")
            assert server.channel_binding("tls-unique") == theirs, session
            assert server.connection_state().unique == theirs
            assert len(theirs) == 12


def test_tls_unique_in_resumption():
    server = server_config(max_version="1.2")
    session = first_session(server)
    with sockets() as stack:
        it = Resumed(stack, server, session)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        assert it.client.connection_state().resumed
        both((it.client, it.server), "tls-unique")
        both((it.client, it.server), "tls-exporter")


def test_tls_1_3_has_no_tls_unique():
    with connected() as (client, _), pytest.raises(ValueError, match=r"1\.2"):
        client.channel_binding("tls-unique")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_tls_server_end_point(version):
    der = localhost().chain[0]
    with connected(server=server_config(max_version=version)) as sides:
        assert both(sides, "tls-server-end-point") == hashlib.sha256(der).digest()


def test_the_certificate_that_a_hook_has_chosen():
    other = certificate("localhost", "other.test")
    with connected(server=server_config(get_certificate=lambda hello: other)) as sides:
        assert both(sides, "tls-server-end-point") == hashlib.sha256(other.chain[0]).digest()


def test_a_resumed_session_has_the_first_ones_certificate_at_the_client_alone():
    server = server_config()
    session = first_session(server)
    with sockets() as stack:
        it = Resumed(stack, server, session)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        assert it.client.connection_state().resumed
        assert it.client.channel_binding("tls-server-end-point") == hashlib.sha256(localhost().chain[0]).digest()
        with pytest.raises(ValueError, match="resumed"):
            it.server.channel_binding("tls-server-end-point")
        both((it.client, it.server), "tls-exporter")


def test_a_clients_own_certificate_is_no_end_point():
    with connected(client=tls.Config(root_cas=trusted(), certificates=[certificate("alice")])) as sides:
        assert both(sides, "tls-server-end-point") == hashlib.sha256(localhost().chain[0]).digest()


def trusted():
    return (x509.load_pem_x509_certificate(authority().cert_pem.bytes()),)


def self_signed(key, algorithm, **options):
    """A DER certificate; its times and names do not matter here."""
    template = x509.load_der_x509_certificate(localhost().chain[0])
    builder = x509.CertificateBuilder().subject_name(template.subject).issuer_name(template.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(template.not_valid_before_utc).not_valid_after(template.not_valid_after_utc)
    return builder.sign(key, algorithm, **options).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")]
)
def test_the_hash_is_the_signatures(algorithm, name):
    key = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
    for der in (
        self_signed(ec.generate_private_key(ec.SECP256R1()), algorithm),
        self_signed(key, algorithm),
        self_signed(key, algorithm, rsa_padding=pss),
    ):
        assert end_point(der) == hashlib.new(name, der).digest()


def test_what_has_no_hash_has_no_end_point():
    with pytest.raises(ValueError, match="no hash"):
        end_point(self_signed(ed25519.Ed25519PrivateKey.generate(), None))


def test_openssl_has_the_same_hash_for_sha1():
    """A certificate that OpenSSL has signed by SHA-1: SHA-256 takes its place (RFC 5929, section 4.1)."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha1"]
    command += ["-subj", "/CN=old", "-outform", "DER", "-keyout", "/dev/null"]
    der = subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
    assert end_point(der) == hashlib.sha256(der).digest()


def test_there_is_none_before_the_handshake_nor_of_another_kind():
    with pair() as (client, _):
        for kind in tls.CHANNEL_BINDINGS:
            with pytest.raises(ValueError, match="confirmed"):
                client.channel_binding(kind)
        with pytest.raises(ValueError, match="tls-nothing"):
            client.channel_binding("tls-nothing")


# --- new keys


@pytest.mark.parametrize("peer", [True, False])
def test_new_keys_are_seen_by_none(peer):
    with connected() as (client, server):
        for _ in range(5):
            client.request_key_update(peer=peer)
            client.write(b"ping")
            assert server.read() == b"ping"
            server.write(b"pong")
            assert client.read() == b"pong"


def test_the_first_call_shakes_hands():
    with pair() as (client, server):
        thread = Thread(server.handshake)
        client.request_key_update()
        client.write(b"x")
        thread.finish()
        assert server.read() == b"x"


def test_openssl_takes_new_keys():
    with sockets() as (a, b):
        b.settimeout(10)
        context = openssl_context("client")

        def openssl():
            with context.wrap_socket(b, server_hostname="localhost") as conn:
                got = conn.recv(100)
                conn.sendall(got.upper())  # under new keys of its own
                return got + conn.recv(100)

        thread = threading.Thread(target=lambda: found.append(openssl()))
        found = []
        thread.start()
        server = tls.server(a, server_config())
        server.handshake()
        server.request_key_update()
        server.write(b"one")
        assert server.read() == b"ONE"
        server.request_key_update(peer=False)
        server.write(b"two")
        thread.join(10)
        assert found == [b"onetwo"]


def test_tls_1_2_has_none_and_a_closed_side_neither():
    with connected(server=server_config(max_version="1.2")) as (client, server):
        for side in (client, server):
            with pytest.raises(ValueError, match=r"1\.3"):
                side.request_key_update()
        client.write(b"it goes on")
        assert server.read() == b"it goes on"
    with connected() as (client, server):
        client.close_write()
        with pytest.raises(tls.ClosedError):
            client.request_key_update()
        assert server.read() == b""


def test_no_keys_change_before_the_confirmation():
    server = server_config(accept_early_data=True)
    session = first_session(server)
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=b"early")
        it.client._queue_output()
        it.client._flush(wait=True)
        assert it.server.read() == b"early"
        with pytest.raises(ValueError, match="established"):
            it.server.request_key_update()
        it.client.handshake()
        it.server.confirm_handshake()
        it.server.request_key_update()
        it.server.write(b"x")
        assert it.client.read() == b"x"
