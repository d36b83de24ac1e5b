"""OpenSSL's s_client: suites, groups, HelloRetryRequest, certificates by name and algorithm, KeyUpdate, versions."""

import re
import subprocess
import threading
import time

import pytest

from tests.e2e.processes import peer, run
from tests.e2e.server import Edge

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def s_client(pki):
    program = peer("openssl")

    def call(edge: Edge, *options: object, name: str | None = "edge.test", send: str = GET, verify: bool = True):
        command = [program, "s_client", "-connect", f"127.0.0.1:{edge.port}", "-ign_eof", "-CAfile", pki.ca.file]
        command += ["-servername", name] if name else ["-noservername"]
        if verify:
            command += ["-verify_return_error"] + (["-verify_hostname", name] if name else [])
        return run([*command, *options], input=send, seconds=20)

    return call


def answered(process) -> str:
    assert process.returncode == 0, process.stdout
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    return process.stdout


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites(s_client, edge, suite):
    assert f"TLSv1.3, Cipher is {suite}" in answered(s_client(edge, "-ciphersuites", suite))


def test_the_servers_order_of_suites_holds_but_for_chacha20(s_client, edge):
    first = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
    assert "Cipher is TLS_AES_128_GCM_SHA256" in answered(s_client(edge, "-ciphersuites", first))
    weak = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
    assert "Cipher is TLS_CHACHA20_POLY1305_SHA256" in answered(s_client(edge, "-ciphersuites", weak))


GROUPS = [
    ("X25519", "X25519, 253 bits"),
    ("P-256", "ECDH, prime256v1, 256 bits"),
    ("P-384", "ECDH, secp384r1, 384 bits"),
]


@pytest.mark.parametrize(("group", "shown"), GROUPS)
def test_groups(s_client, edge, group, shown):
    # "Server Temp Key" until OpenSSL 3.2, "Peer Temp Key" since.
    assert re.search(f"(Server|Peer) Temp Key: {shown}", answered(s_client(edge, "-groups", group)))


@pytest.fixture(scope="module")
def p256_edge(tmp_path_factory, pki, nginx):
    """Takes P-256 only: a client that guesses another share must be asked again."""
    with Edge(tmp_path_factory.mktemp("p256"), pki, {"nginx": [nginx.server]}, tls={"groups": ["secp256r1"]}) as edge:
        yield edge


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
@pytest.mark.parametrize("groups", ["X25519:P-256", "P-384:X25519:P-256", "X448:P-521:P-256"])
def test_hello_retry_request(s_client, p256_edge, groups, suite):
    said = answered(s_client(p256_edge, "-groups", groups, "-ciphersuites", suite, "-msg"))
    assert said.count(", ClientHello") == 2  # asked again, and answered
    assert "prime256v1" in said


def test_hello_retry_request_without_middlebox_compatibility(s_client, p256_edge):
    said = answered(s_client(p256_edge, "-groups", "X25519:P-256", "-no_middlebox", "-msg"))
    assert said.count(", ClientHello") == 2
    assert "ChangeCipherSpec" not in said


def test_middlebox_compatibility(s_client, edge):
    """A change_cipher_spec record comes, which s_client shows by its header only."""
    change_cipher_spec = r"<<< TLS 1.2, RecordHeader \[length 0005\]\n +14 03 03 00 01"
    assert re.search(change_cipher_spec, answered(s_client(edge, "-msg")))
    assert not re.search(change_cipher_spec, answered(s_client(edge, "-msg", "-no_middlebox")))


def test_no_common_group(s_client, p256_edge):
    since = p256_edge.mark()
    refused = s_client(p256_edge, "-groups", "X25519:P-384")
    assert refused.returncode != 0
    assert "alert handshake failure" in refused.stdout
    p256_edge.wait_error("handshake failed: .*handshake_failure", since)


def test_no_common_suite(s_client, make_edge, nginx):
    edge = make_edge({"nginx": [nginx.server]}, tls={"cipher_suites": ["TLS_AES_256_GCM_SHA384"]})
    assert "Cipher is TLS_AES_256_GCM_SHA384" in answered(s_client(edge))
    refused = s_client(edge, "-ciphersuites", "TLS_AES_128_GCM_SHA256")
    assert "alert handshake failure" in refused.stdout
    edge.wait_error("handshake failed: .*handshake_failure")


def serial(said: str, openssl: str) -> int:
    pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", said, re.DOTALL).group()
    shown = run([openssl, "x509", "-noout", "-serial"], input=pem)
    return int(shown.stdout.strip().removeprefix("serial="), 16)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("edge.test", "default"),
        ("EDGE.Test", "default"),
        ("localhost", "default"),
        ("p384.edge.test", "p384"),
        ("rsa.edge.test", "rsa"),
        ("ed25519.edge.test", "ed25519"),
        ("a.wild.edge.test", "wildcard"),
        ("A.WILD.EDGE.TEST", "wildcard"),
        ("exact.wild.edge.test", "exact"),
    ],
)
def test_certificate_by_name(s_client, edge, name, label):
    said = answered(s_client(edge, name=name))
    assert serial(said, peer("openssl")) == getattr(edge.pki, label).serial


@pytest.mark.parametrize("name", [None, "unknown.test", "a.b.wild.edge.test", "wild.edge.test", "127.0.0.1.example"])
def test_default_certificate(s_client, edge, name):
    said = answered(s_client(edge, name=name, verify=False))
    assert serial(said, peer("openssl")) == edge.pki.default.serial


@pytest.mark.parametrize(
    ("name", "signed"),
    [
        # as OpenSSL 3.0 and as 3.5 call them
        ("edge.test", "ECDSA|ecdsa_secp256r1_sha256"),
        ("p384.edge.test", "ECDSA|ecdsa_secp384r1_sha384"),
        ("rsa.edge.test", "RSA-PSS|rsa_pss_rsae_sha256"),
        ("ed25519.edge.test", "ed25519"),
    ],
)
def test_kinds_of_keys(s_client, edge, name, signed):
    assert re.search(f"Peer signature type: ({signed})\n", answered(s_client(edge, name=name)))


@pytest.mark.parametrize(
    ("algorithms", "label"),
    [("ECDSA+SHA256:RSA-PSS+SHA256", "multi_ecdsa"), ("RSA-PSS+SHA256:ECDSA+SHA384", "multi_rsa"),
     ("rsa_pss_rsae_sha256", "multi_rsa"), ("ECDSA+SHA256", "multi_ecdsa")],
)  # fmt: skip
def test_certificate_by_signature_algorithms(s_client, edge, algorithms, label):
    """Of two certificates for one name, the one that the client can verify."""
    # The chain is signed by the CA's ECDSA key, which a client that lists RSA alone could not verify: it does not.
    said = answered(s_client(edge, "-sigalgs", algorithms, name="multi.edge.test", verify=False))
    assert serial(said, peer("openssl")) == getattr(edge.pki, label).serial


def test_no_common_signature_algorithm(s_client, edge):
    refused = s_client(edge, "-sigalgs", "ed448", verify=False)
    assert "alert handshake failure" in refused.stdout


@pytest.mark.parametrize("flags", [["-tls1_2"], ["-no_tls1_3"]])
def test_older_versions_are_refused(s_client, nginx, make_edge, flags):
    edge = make_edge({"nginx": [nginx.server]}, tls={"min_version": "1.3"})
    since = edge.mark()
    refused = s_client(edge, *flags)
    assert refused.returncode != 0
    assert "alert protocol version" in refused.stdout
    edge.wait_error("handshake failed: .*protocol_version", since)


@pytest.mark.parametrize(("offered", "chosen"), [("http/1.1", "http/1.1"), ("h3,http/1.1", "http/1.1")])
def test_alpn(s_client, edge, offered, chosen):
    assert f"ALPN protocol: {chosen}" in answered(s_client(edge, "-alpn", offered))


def test_no_alpn(s_client, edge):
    assert "No ALPN negotiated" in answered(s_client(edge))


def test_alpn_without_a_common_protocol(s_client, edge):
    since = edge.mark()
    refused = s_client(edge, "-alpn", "imap,pop3")
    assert "no application protocol" in refused.stdout
    edge.wait_error("handshake failed: .*no_application_protocol", since)


@pytest.mark.parametrize(
    "flags", [["-record_padding", "4096"], ["-max_send_frag", "512"], ["-split_send_frag", "16", "-max_pipelines", "1"]]
)
def test_padded_and_small_records(s_client, edge, flags):
    answered(s_client(edge, *flags))


class Interactive:
    """s_client with its commands: "K" updates both keys, "k" its own, "Q" ends; what it says is gathered."""

    def __init__(self, edge: Edge, *options: str) -> None:
        command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test"]
        command += ["-CAfile", str(edge.pki.ca.file), "-verify_return_error", *options]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := self.popen.stdout.read1():
            self.said += data

    def send(self, text: str) -> None:
        self.popen.stdin.write(text.encode())
        self.popen.stdin.flush()
        time.sleep(0.05)  # s_client takes a command only at the begin of what one read brings

    def expect(self, mark: bytes, count: int = 1, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while self.said.count(mark) < count:
            assert time.monotonic() < end, self.said
            time.sleep(0.01)

    def __enter__(self) -> "Interactive":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(5)
        self._reader.join(5)
        self.popen.stdin.close()
        self.popen.stdout.close()


@pytest.mark.parametrize("command", ["k", "K"])
def test_key_update(edge, command):
    """Between requests, several times, asking for the server's update or not."""
    with Interactive(edge, "-msg") as client:
        client.expect(b"Verify return code: 0")
        for round in range(1, 5):
            client.send(f"{command}\n")
            client.expect(b"KEYUPDATE")
            client.send(f"GET /headers?round{round} HTTP/1.1\r\nHost: edge.test\r\n\r\n")
            client.expect(f"uri=/headers?round{round}".encode())
        sent = len(re.findall(rb">>> .*KeyUpdate", client.said))
        came = len(re.findall(rb"<<< .*KeyUpdate", client.said))
        assert sent == 4
        assert came == (4 if command == "K" else 0)


def test_orderly_end(edge):
    """Our close_notify comes back, then the end."""
    with Interactive(edge, "-msg") as client:
        client.send("GET /headers HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
        client.expect(b"close_notify")
        assert client.popen.wait(8) == 0
        assert re.search(rb"<<< .*Alert.*\n.*01 00", client.said) or b"warning close_notify" in client.said
