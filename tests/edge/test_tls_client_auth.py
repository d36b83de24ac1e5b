"""Client certificates, channel bindings and the key log."""

import datetime
import hashlib
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import tls
from tests.edge.tls_peers import (
    Thread,
    authority,
    certificate,
    client_config,
    connected,
    issue,
    openssl_context,
    pair,
    roots,
    server_config,
    sockets,
)

NOW = datetime.datetime.now(datetime.UTC)
ASK = {"request": tls.ClientAuth.REQUEST, "require": tls.ClientAuth.REQUIRE}


def asking(mode="require", **options):
    return server_config(**{"client_auth": ASK[mode], "client_cas": roots(), **options})


def client_certificate(purpose=ExtendedKeyUsageOID.CLIENT_AUTH, *, signer=None, days=1):
    """As many authorities make them: named by the subject, with no subjectAltName."""
    ca = x509.load_pem_x509_certificate(authority().cert_pem.bytes())
    ca_key = load_pem_private_key(authority().private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(10))
        .not_valid_after(NOW + datetime.timedelta(days))
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return tls.Certificate(chain=[leaf.public_bytes(Encoding.DER)], private_key=signer(key) if signer else key)


@pytest.fixture(scope="module")
def alice():
    return client_certificate()


@pytest.mark.parametrize("mode", ASK)
def test_a_client_shows_its_certificate(mode, alice):
    with connected(server=asking(mode), client=client_config(certificates=[alice])) as (client, server):
        assert server.connection_state().peer_certificates == tuple(alice.chain)
        server.write(b"hello alice")
        assert client.read() == b"hello alice"


def test_requested_and_not_shown():
    with connected(server=asking("request")) as (client, server):
        assert server.connection_state().peer_certificates == ()
        client.write(b"nobody")
        assert server.read() == b"nobody"


def refused(server, client):
    """What the server says of such a client, and the client when it reads."""
    with pair(server=server, client=client) as (a, b):
        thread = Thread(b.handshake)
        with pytest.raises(tls.AlertReceived) as theirs:
            a.read()  # its own handshake was done with its Finished
        with pytest.raises(tls.AlertSent) as ours:
            thread.finish()
    assert theirs.value.alert == ours.value.alert
    return ours.value


def test_required_and_not_shown():
    assert refused(asking(), client_config()).alert == "certificate_required"


DISTRUSTED = {
    "unknown_ca": lambda: certificate("localhost", ca=trustme.CA()),
    "bad_certificate": lambda: client_certificate(ExtendedKeyUsageOID.SERVER_AUTH),
    "certificate_expired": lambda: client_certificate(days=-1),
}


def test_a_callable_that_says_no_without_raising(alice):
    server = asking(verify=lambda chain, name: False, client_cas=None)
    assert "returned False" in refused(server, client_config(certificates=[alice])).reason


@pytest.mark.parametrize("mode", ASK)
@pytest.mark.parametrize("alert", DISTRUSTED)
def test_shown_and_not_trusted(mode, alert):
    error = refused(asking(mode), client_config(certificates=[DISTRUSTED[alert]()]))
    assert isinstance(error, tls.CertificateError)
    assert error.alert == alert
    assert isinstance(error.__cause__, tls.Refuse)


def test_an_earlier_distrust_is_not_blamed_for_a_later_fault(alice):
    thread_of_both = []

    def work():
        with pair(client=tls.Config(root_cas=[another_root()])) as (client, server):
            serving = Thread(server.handshake)
            with pytest.raises(tls.CertificateError):
                client.handshake()
            with pytest.raises(tls.AlertReceived):
                serving.finish()
        with sockets() as (a, b):
            a.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(tls.AlertSent) as error:
                tls.server(b, server_config()).handshake()
            thread_of_both.append(error.value)

    Thread(work).finish()
    assert not isinstance(thread_of_both[0], tls.CertificateError)
    assert thread_of_both[0].__cause__ is None


def another_root():
    return x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())


def test_a_callable_decides(alice):
    asked = []

    def verify(chain, name):
        asked.append((chain, name))
        raise tls.Refuse("access_denied", "not alice")

    server = server_config(client_auth=tls.ClientAuth.REQUIRE, verify=verify)
    error = refused(server, client_config(certificates=[alice]))
    assert error.alert == "access_denied"
    assert asked == [(tuple(alice.chain), "")]


def test_whoever_holds_a_key_is_enough_without_verification(alice):
    server = server_config(client_auth=tls.ClientAuth.REQUIRE, verify=False)
    with connected(server=server, client=client_config(certificates=[alice])) as (_, conn):
        assert conn.connection_state().peer_certificates == tuple(alice.chain)


def test_a_remote_key_signs_for_a_client():
    class Remote:
        def __init__(self, key):
            self.key = key

        async def sign(self, message, scheme):
            assert message.startswith(b" " * 64 + b"TLS 1.3, client CertificateVerify\0")
            assert scheme == 0x0403
            return self.key.sign(message, ec.ECDSA(hashes.SHA256()))

    remote = client_certificate(signer=Remote)
    with connected(server=asking(), client=client_config(certificates=[remote])) as (client, server):
        assert server.connection_state().peer_certificates == tuple(remote.chain)
        client.write(b"x")
        assert server.read() == b"x"


def test_a_remote_key_that_fails_for_a_client():
    class Broken:
        def __init__(self, key):
            pass

        def sign(self, message, scheme):
            raise LookupError("the token is gone")

    broken = client_certificate(signer=Broken)
    with pair(server=asking(), client=client_config(certificates=[broken])) as (client, server):
        thread = Thread(server.handshake)
        with pytest.raises(tls.AlertSent) as error:
            client.handshake()
        assert isinstance(error.value.__cause__, LookupError)
        with pytest.raises(tls.AlertReceived):
            thread.finish()


def test_the_certificate_is_remembered_and_checked_again(alice):
    trusted = [True]

    def verify(chain, name):
        if name == "" and not trusted[0]:
            raise tls.Refuse("certificate_revoked")

    server = server_config(client_auth=tls.ClientAuth.REQUIRE, verify=verify)
    ours = client_config(certificates=[alice])
    with connected(server=server, client=ours) as (client, conn):
        conn.write(b"x")
        client.read()
        session = client.session
    for resumed in (True, False):
        with sockets() as (a, b):
            client = tls.client(a, ours, server_name="localhost", session=session)
            conn = tls.server(b, server)
            thread = Thread(conn.handshake)
            if resumed:
                client.handshake()
                thread.finish()
                state = conn.connection_state()
                assert state.resumed and state.peer_certificates == tuple(alice.chain)
                trusted[0] = False
            else:
                with pytest.raises(tls.CertificateError, match="revoked"):
                    thread_and(client.read, thread)


def thread_and(read, thread):
    with pytest.raises(tls.AlertReceived):
        read()
    thread.finish()


def test_openssl_as_client():
    context = openssl_context("client")
    leaf = issue("alice.example.com")
    leaf.configure_cert(context)
    with sockets() as (a, b):
        server = tls.server(b, asking())
        thread = Thread(server.handshake)
        with context.wrap_socket(a, server_hostname="localhost") as client:
            thread.finish()
            server.write(b"x")
            assert client.recv(1) == b"x"
            assert client.version() == "TLSv1.3"
    shown = x509.load_der_x509_certificate(server.connection_state().peer_certificates[0])
    assert shown == x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


def test_openssl_as_server(alice):
    context = openssl_context("server", verify_mode=ssl.CERT_REQUIRED)
    authority().configure_trust(context)

    def serve(sock):
        with context.wrap_socket(sock, server_side=True) as server:
            server.sendall(server.getpeercert(binary_form=True))

    with sockets() as (a, b):
        thread = Thread(serve, b)
        with tls.client(a, client_config(certificates=[alice]), server_name="localhost") as client:
            assert client.read() == alice.chain[0]
        thread.finish()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"client_auth": "require"}, "client_"),
        ({"client_auth": tls.ClientAuth.REQUIRE}, "client_cas"),
        ({"client_auth": tls.ClientAuth.REQUIRE, "client_cas": ()}, "at least one"),
        ({"client_cas": "ca.pem"}, "client_auth"),
        ({"client_auth": tls.ClientAuth.REQUEST, "client_cas": "ca.pem", "verify": False}, "client_cas"),
    ],
)
def test_a_configuration_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        tls.Config(**options)


# --- what only the two ends have


def test_both_ends_are_bound_to_one_connection():
    with connected() as (client, server):
        unique = client.connection_state().unique
        assert len(unique) == 32
        assert server.connection_state().unique == unique
        ours = client.export_keying_material("EXPORTER-test", b"context", 48)
        assert len(ours) == 48
        assert server.export_keying_material("EXPORTER-test", b"context", 48) == ours
        assert server.export_keying_material("EXPORTER-test", b"another", 48) != ours
    with connected() as (client, _):
        assert client.connection_state().unique != unique


def expand_label(algorithm, secret, label, context, length):
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)]) + context
    return HKDFExpand(algorithm, length, info).derive(secret)


def test_the_binding_follows_from_the_exporter_secret():
    """By RFC 8446, section 7.5, and RFC 9266, with the secret of the key log."""
    lines = []
    with connected(client=client_config(key_log=lines.append)) as (client, _):
        state = client.connection_state()
    secret = bytes.fromhex(next(line for line in lines if line.startswith("EXPORTER_SECRET ")).split()[2])
    algorithm = hashes.SHA384() if state.cipher_suite.endswith("SHA384") else hashes.SHA256()
    empty = hashlib.new(algorithm.name).digest()
    derived = expand_label(algorithm, secret, b"EXPORTER-Channel-Binding", empty, len(empty))
    assert expand_label(algorithm, derived, b"exporter", empty, 32) == state.unique


def test_nothing_is_exported_before_the_handshake():
    with pair() as (client, _):
        assert client.connection_state().unique == b""
        with pytest.raises(ValueError, match="confirmed"):
            client.export_keying_material("EXPORTER-test")


@pytest.mark.parametrize(
    ("version", "labels"),
    [
        ("1.2", {"CLIENT_RANDOM"}),
        (
            "1.3",
            {
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0",
                "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET",
            },
        ),
    ],
)  # fmt: skip
def test_the_key_log_is_the_same_at_both_ends(version, labels):
    ours, theirs = [], []
    with connected(
        server=server_config(key_log=theirs.append, max_version=version), client=client_config(key_log=ours.append)
    ):
        pass
    assert sorted(ours) == sorted(theirs)
    assert {line.split()[0] for line in ours} == labels
    assert len(ours) == len(labels)
    assert all(len(bytes.fromhex(line.split()[1])) == 32 for line in ours)
    assert all(len(bytes.fromhex(line.split()[2])) in (32, 48) for line in ours)
    assert len({line.split()[1] for line in ours}) == 1, "the client's random"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_openssl_logs_the_same_keys(version, tmp_path):
    ours = []
    with sockets() as (a, b):
        context = openssl_context("client", maximum_version=getattr(ssl.TLSVersion, f"TLSv1_{version[-1]}"))
        context.keylog_filename = str(tmp_path / "keys")
        thread = Thread(lambda: context.wrap_socket(b, server_hostname="localhost"))
        server = tls.server(a, server_config(key_log=ours.append))
        server.handshake()
        thread.finish()
    theirs = [line for line in (tmp_path / "keys").read_text().splitlines() if not line.startswith("#")]
    assert sorted(ours) == sorted(theirs)


def test_a_key_log_that_fails_ends_no_connection():
    def full(line):
        raise OSError("the disk is full")

    with connected(server=server_config(key_log=full)) as (client, server):
        client.write(b"x")
        assert server.read() == b"x"
