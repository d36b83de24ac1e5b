"""The engine against OpenSSL: s_client over a socket, and Python's ssl in memory."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from cext.tls.engine import CLOSE_NOTIFY, DATA, ESTABLISHED, FAILED, Engine

from cext.crypto import kx
from tests.cext.tls.peer import AES_128, KEY_KINDS, P256, P384, SUITES, X25519, server_config

# of OpenSSL's client, which has ML-KEM from 3.5 on
PREFERRED = kx.X25519MLKEM768 if ssl.OPENSSL_VERSION_INFO >= (3, 5) else X25519

OPENSSL = shutil.which("openssl")
GROUPS = {X25519: "X25519", P256: "P-256", P384: "P-384"}
SUITE_NAMES = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl command")


class EchoServer:
    """Serves one connection from a thread: what comes is sent back in capitals; close_notify is answered."""

    def __init__(self, config):
        self.connection = Engine(config)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.received = b""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        peer, _ = self.socket.accept()
        with peer, self.socket:
            peer.settimeout(20)
            while data := peer.recv(65536):
                for event, payload in self.connection.receive_bytes(data):
                    if event == DATA:
                        self.received += payload
                        self.connection.send(payload.upper())
                    elif event == CLOSE_NOTIFY:
                        self.connection.send_close_notify()
                peer.sendall(self.connection.take_output())
                if self.connection.failure or self.connection.read_closed:
                    return


def s_client(server, *arguments, lines=b"hello\n", version="-tls1_3"):
    """Runs it until it has echoed the lines (Q quits it); its whole output."""
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "example.com", version,
               *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = b""
    try:
        process.stdin.write(lines)
        process.stdin.flush()
        echo = lines.splitlines()[-1].upper()
        for line in process.stdout:
            output += line
            if line.strip() == echo:
                break
        process.stdin.write(b"Q\n")
        output += process.communicate(timeout=20)[0]
    except BrokenPipeError:
        output += process.stdout.read()
    finally:
        process.kill()
        process.wait()
    server.thread.join(20)
    assert not server.thread.is_alive()
    return output.decode(errors="replace")


@needs_openssl
@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("suite", SUITES)
def test_s_client(suite, group, kind):
    server = EchoServer(server_config(kind))
    output = s_client(server, "-ciphersuites", SUITE_NAMES[suite], "-groups", GROUPS[group])
    assert f"TLSv1.3, Cipher is {SUITE_NAMES[suite]}" in output
    assert "HELLO" in output
    connection = server.connection
    assert (connection.cipher_suite, connection.group, connection.failure) == (suite, group, None)
    assert connection.read_closed


@needs_openssl
@pytest.mark.parametrize(("config_group", "offer"), [(X25519, "P-384:X25519"), (P256, "X25519:P-256"),
                                                     (P384, "X25519:P-256:P-384")])
def test_s_client_is_asked_for_another_share(config_group, offer):
    server = EchoServer(server_config(groups=(config_group,)))
    output = s_client(server, "-groups", offer)
    assert "HELLO" in output
    assert (server.connection.hello_retried, server.connection.group) == (True, config_group)


@needs_openssl
def test_s_client_updates_keys():
    """k and K: KeyUpdate, without and with a request for ours."""
    server = EchoServer(server_config())
    output = s_client(server, lines=b"one\nk\ntwo\nK\nthree\nK\nfour\n")
    for word in ("ONE", "TWO", "THREE", "FOUR"):
        assert word in output
    assert server.connection.failure is None


@needs_openssl
def test_s_client_without_middlebox_compatibility_and_with_small_records():
    server = EchoServer(server_config())
    output = s_client(server, "-no_middlebox", "-max_send_frag", "512", "-alpn", "http/1.1",
                      lines=b"x" * 3000 + b"\nhello\n")
    assert "ALPN protocol: http/1.1" in output
    assert server.received == b"x" * 3000 + b"\nhello\n"


@needs_openssl
@pytest.mark.parametrize(("arguments", "options", "version", "alert"), [
    ((), {"min_version": 0x0304}, "-tls1_2", "protocol version"),
    (("-groups", "P-521"), {}, "-tls1_3", "handshake failure"),
    (("-alpn", "imap"), {}, "-tls1_3", "no application protocol"),
    (("-sigalgs", "RSA-PSS+SHA256"), {}, "-tls1_3", "handshake failure"),
])
def test_s_client_is_told_why(arguments, options, version, alert):
    server = EchoServer(server_config(**options))
    output = s_client(server, *arguments, version=version)
    assert alert in output.lower().replace("_", " ")
    assert server.connection.failure.name == alert.replace(" ", "_")


# --- Python's ssl, in memory

class SslClient:
    def __init__(self, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if "alpn" in options:
            context.set_alpn_protocols(options["alpn"])
        if "curve" in options:
            context.set_ecdh_curve(options["curve"])
        if "maximum" in options:
            context.maximum_version = options["maximum"]
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname="example.com")

    def handshake(self, server, chunk=1 << 20):
        """Until both are done or the server fails; bytes go over in pieces of `chunk`. The server's events."""
        events = []
        for _ in range(8):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.do_handshake()
            sent = self.outgoing.read()
            for at in range(0, len(sent), chunk):
                events += server.receive_bytes(sent[at : at + chunk])
            if server.established or server.failure:
                break
            self.incoming.write(server.take_output())
        return events


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("curve", [None, "prime256v1", "secp384r1"])
def test_ssl_module(kind, curve):
    server = Engine(server_config(kind, alpn=(b"h2", b"http/1.1")))
    client = SslClient(alpn=["http/1.1", "h2"], **({"curve": curve} if curve else {}))
    assert client.handshake(server)[-1] == (ESTABLISHED, b"")
    assert client.object.version() == "TLSv1.3"
    assert client.object.selected_alpn_protocol() == "h2"
    assert server.group == {None: PREFERRED, "prime256v1": P256, "secp384r1": P384}[curve]
    server.send(b"x" * 100_000)
    client.incoming.write(server.take_output())
    received = b""
    while len(received) < 100_000:
        received += client.object.read(65536)
    client.object.write(b"y" * 50_000)
    assert b"".join(p for _, p in server.receive_bytes(client.outgoing.read())) == b"y" * 50_000


def test_ssl_module_byte_by_byte():
    server = Engine(server_config())
    assert SslClient().handshake(server, chunk=1)[-1] == (ESTABLISHED, b"")
    assert server.cipher_suite == AES_128


def test_ssl_module_closes():
    server = Engine(server_config())
    client = SslClient()
    client.handshake(server)
    with pytest.raises(ssl.SSLWantReadError):
        client.object.unwrap()
    assert server.receive_bytes(client.outgoing.read())[-1] == (CLOSE_NOTIFY, b"")
    server.send_close_notify()
    client.incoming.write(server.take_output())
    client.object.unwrap()


def test_ssl_module_with_tls12_only():
    server = Engine(server_config(min_version=0x0304))
    client = SslClient(maximum=ssl.TLSVersion.TLSv1_2)
    assert client.handshake(server)[-1] == (FAILED, b"")
    client.incoming.write(server.take_output())
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        client.object.do_handshake()
