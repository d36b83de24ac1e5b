"""What a connection's secrets give to others: keying material (RFC 8446, section 7.5) and an NSS key log."""

import shutil
import ssl

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine

from tests.cext.tls.peer import SUITES, credential, pump, server_config
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
              credential=credential("ecdsa-p256", "client.example"))
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
