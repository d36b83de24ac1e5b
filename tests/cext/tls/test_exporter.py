"""What a connection's secrets give to others: keying material (RFC 8446, section 7.5) and an NSS key log."""

import hmac
import shutil
import ssl

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine
from cext.tls.session import TicketKeys

from tests.cext.tls.peer import SUITES, credential, pump, server_config
from tests.cext.tls.peer12 import HASHES, RawClient12, Ssl
from tests.cext.tls.test_client_auth import Memory
from tests.cext.tls.test_peers import EchoServer, s_client

OPENSSL = shutil.which("openssl")


def connected(server_options=None, **client_options):
    server = Engine(server_config(**(server_options or {})))
    client = Engine(ClientConfig(server_name="example.com", **client_options))
    pump(client, server)
    assert server.established, server.failure
    assert client.established, client.failure
    return client, server


# --- exporters

@pytest.mark.parametrize("suite", SUITES)
def test_both_ends_have_the_same(suite):
    client, server = connected(cipher_suites=(suite,))
    material = client.exporter("EXPORTER-Channel-Binding", b"", 32)
    assert len(material) == 32
    assert server.exporter(b"EXPORTER-Channel-Binding") == material
    assert server.exporter("EXPORTER-Channel-Binding", b"x") != material
    assert server.exporter("EXPORTER-other") != material
    long = client.exporter("EXPORTER-x", b"c" * 300, 255 * 32)
    assert len(long) == 255 * 32
    assert server.exporter("EXPORTER-x", b"c" * 300, 255 * 32) == long
    # The length is part of what is hashed: a shorter one is not the beginning of a longer one (HkdfLabel.length).
    assert client.exporter("EXPORTER-x", b"c" * 300, 32) != long[:32]
    other, _ = connected(cipher_suites=(suite,))
    assert other.exporter("EXPORTER-Channel-Binding") != material


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command")
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
@pytest.mark.parametrize("length", [20, 100])
def test_openssl_exports_the_same(suite, length):
    server = EchoServer(server_config())
    output = s_client(server, "-keymatexport", "EXPORTER-test", "-keymatexportlen", str(length), "-ciphersuites", suite)
    expected = server.connection.exporter("EXPORTER-test", b"", length).hex().upper()
    assert f"Keying material: {expected}" in output


@pytest.mark.parametrize(("arguments", "words"), [
    (("",), "label"), (("x" * 250,), "label"), (("x", b"", 0), "gives"), (("x", b"", 255 * 32 + 1), "gives"),
])
def test_what_cannot_be_exported(arguments, words):
    client, _ = connected(cipher_suites=(0x1301,))
    with pytest.raises(ValueError, match=words):
        client.exporter(*arguments)


def test_not_before_the_handshake_is_confirmed():
    server, client = Engine(server_config()), Engine(ClientConfig())
    server.receive_bytes(client.take_output())
    for end in (server, client):
        with pytest.raises(ValueError, match="established"):
            end.exporter("EXPORTER-x")


# --- TLS 1.2

def connected12(suite=0xC02B, **options):
    return connected({"cipher_suites": (suite,), **options})


@pytest.mark.parametrize("suite", [0xC02B, 0xC02C, 0xCCA9])
def test_both_ends_have_the_same_in_tls12(suite):
    client, server = connected12(suite)
    material = client.exporter("EXPORTER-test", b"context", 100)
    assert server.exporter("EXPORTER-test", b"context", 100) == material
    assert server.exporter("EXPORTER-test", b"context", 10) == material[:10]
    # No context and an empty one are two things (RFC 5705, section 4).
    assert len({client.exporter("EXPORTER-test", context) for context in (None, b"", b"x")}) == 3
    assert client.exporter("", b"", 1) == server.exporter("", b"", 1)
    other, _ = connected12(suite)
    assert other.exporter("EXPORTER-test", b"context", 100) != material


@pytest.mark.parametrize("suite", [0xC02B, 0xC02C])
def test_the_exporter_is_the_prf(suite):
    client = RawClient12(suite=suite).connect()
    randoms = client.random + client.server_random
    for context, seed in ((None, b""), (b"", bytes(2)), (b"c" * 300, b"\1\x2c" + b"c" * 300)):
        expected = p_hash(HASHES[client.hash], client.master, b"EXPORTER-x" + randoms + seed, 200)
        assert client.server.exporter("EXPORTER-x", context, 200) == expected


def p_hash(digest, secret, seed, n):
    """RFC 5246, section 5."""
    out, a = b"", seed
    while len(out) < n:
        a = hmac.digest(secret, a, digest)
        out += hmac.digest(secret, a + seed, digest)
    return out[:n]


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command")
@pytest.mark.parametrize("length", [20, 100])
def test_openssl_exports_the_same_in_tls12(length):
    server = EchoServer(server_config())
    output = s_client(server, "-keymatexport", "EXPORTER-test", "-keymatexportlen", str(length), version="-tls1_2")
    expected = server.connection.exporter("EXPORTER-test", None, length).hex().upper()
    assert f"Keying material: {expected}" in output


@pytest.mark.parametrize(("arguments", "words"), [
    (("x" * 250,), "label"), (("x", b"", 0), "gives"), (("x", b"", 255 * 32 + 1), "gives"),
    (("x", bytes(1 << 16)), "context"), (("master secret",), "label"), (("client finished",), "label"),
])
def test_what_cannot_be_exported_in_tls12(arguments, words):
    client, _ = connected12()
    with pytest.raises(ValueError, match=words):
        client.exporter(*arguments)


def test_nothing_is_exported_without_the_extended_master_secret():
    server = RawClient12(ems=False).connect().server
    with pytest.raises(ValueError, match="extended master secret"):
        server.exporter("EXPORTER-x")
    assert server.tls_unique == b""


def test_tls_unique():
    client, server = connected12(tickets=TicketKeys([(bytes(16), bytes(32))]))
    assert client.tls_unique == server.tls_unique
    assert len(client.tls_unique) == 12
    again, at = Engine(ClientConfig(server_name="example.com"), client.session), Engine(
        server_config(cipher_suites=(0xC02B,), tickets=TicketKeys([(bytes(16), bytes(32))])))
    pump(again, at)
    assert at.resumed
    assert again.tls_unique == at.tls_unique != client.tls_unique
    assert connected()[0].tls_unique == b""             # TLS 1.3 has tls-exporter instead


def test_tls_unique_is_the_first_finished():
    server = Engine(server_config())
    peer = Ssl(server).handshake()
    assert peer.object.get_channel_binding("tls-unique") == server.tls_unique
    keys = TicketKeys([(bytes(16), bytes(32))])
    peer = Ssl(Engine(server_config(tickets=keys))).handshake()
    server = Engine(server_config(tickets=keys))
    again = Ssl(server, context=peer.context, session=peer.object.session).handshake()
    assert server.resumed
    assert again.object.get_channel_binding("tls-unique") == server.tls_unique


# --- key log

def kinds(lines):
    return sorted(line.split()[0] for line in lines)


TRAFFIC = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "EXPORTER_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0",
]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("client_auth", ["none", "require"])
def test_both_ends_log_the_same(suite, client_auth):
    ours, theirs = [], []
    connected({"key_log": ours.append, "client_auth": client_auth}, key_log=theirs.append, cipher_suites=(suite,),
              credentials=[credential("ecdsa-p256", "client.example")])
    assert sorted(ours) == sorted(theirs)
    assert kinds(ours) == TRAFFIC


def test_nothing_is_logged_unless_asked_for():
    ours = []
    connected({"key_log": ours.append})
    assert kinds(ours) == TRAFFIC
    assert len({line.split()[1] for line in ours}) == 1
    client, server = connected()
    assert not hasattr(server, "read_secret")
    assert not hasattr(client, "exporter_secret")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_openssl_logs_the_same(tmp_path, version):
    log = tmp_path / "keys"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.keylog_filename = str(log)
    ours = []
    server, client = Engine(server_config(key_log=ours.append)), Memory(context, False)
    pump(client, server)
    assert server.established, server.failure
    assert client.done, client.error
    theirs = [line for line in log.read_text().splitlines() if not line.startswith("#")]
    assert sorted(theirs) == sorted(ours)
    assert kinds(ours) == (TRAFFIC if version == ssl.TLSVersion.TLSv1_3 else ["CLIENT_RANDOM"])


def test_a_key_log_that_fails_ends_nothing():
    def full(line):
        raise OSError(28, "No space left on device")

    connected({"key_log": full}, key_log=full)


def test_key_log_is_a_callable():
    with pytest.raises(ValueError, match="key_log"):
        server_config(key_log="keys.txt")
    with pytest.raises(ValueError, match="key_log"):
        ClientConfig(key_log="keys.txt")
