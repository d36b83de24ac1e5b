"""GnuTLS's client: suites and groups by priority string, HelloRetryRequest, certificates, versions, rekeying."""

import pytest

from tests.e2e.processes import peer, run

GET = "GET /headers HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
BASE = "NONE:+VERS-TLS1.3:+SIGN-ALL:+AEAD:+COMP-ALL:+CTYPE-X509"
ALL_CIPHERS = "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
ALL_GROUPS = "+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1"


@pytest.fixture(scope="module")
def gnutls(edge, pki):
    program = peer("gnutls-cli")

    def call(priority: str, *options: object, name: str = "edge.test", send: str = GET, server=edge):
        command = [program, "--port", server.port, "--sni-hostname", name, "--verify-hostname", name]
        command += ["--x509cafile", pki.ca.file, "--priority", priority, *options, "127.0.0.1"]
        return run(command, input=send.format(name=name), seconds=20)

    return call


def answered(process) -> str:
    assert process.returncode == 0, process.stdout
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    assert "uri=/headers" in process.stdout
    return process.stdout


@pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"])
def test_suites(gnutls, cipher):
    assert f"({cipher})" in answered(gnutls(f"{BASE}:+{cipher}:{ALL_GROUPS}"))


@pytest.mark.parametrize("group", ["X25519", "SECP256R1", "SECP384R1"])
def test_groups(gnutls, group):
    assert f"(ECDHE-{group})" in answered(gnutls(f"{BASE}:{ALL_CIPHERS}:+GROUP-{group}"))


def test_hello_retry_request(gnutls):
    """Its one share is of a group that the server lacks."""
    priority = f"{BASE}:{ALL_CIPHERS}:+GROUP-X448:+GROUP-SECP384R1"
    said = answered(gnutls(priority, "--single-key-share"))
    assert "(ECDHE-SECP384R1)" in said


@pytest.mark.parametrize("name", ["p384.edge.test", "rsa.edge.test", "ed25519.edge.test", "b.wild.edge.test"])
def test_certificates(gnutls, name):
    assert "Status: The certificate is trusted" in answered(gnutls("NORMAL", name=name))


@pytest.mark.parametrize("signature", ["RSA-PSS-RSAE-SHA256", "ECDSA-SECP256R1-SHA256"])
def test_signature_algorithms_choose_the_certificate(gnutls, signature):
    # The chain's own signatures are by the CA's ECDSA key: a client that lacks it cannot verify, and does not here.
    priority = f"NORMAL:-SIGN-ALL:+SIGN-{signature}"
    assert f"({signature})" in answered(gnutls(priority, "--insecure", name="multi.edge.test"))


def test_alpn(gnutls):
    assert "Application protocol: http/1.1" in answered(gnutls("NORMAL", "--alpn", "h3", "--alpn", "http/1.1"))


def test_record_size_limit(gnutls):
    """RFC 8449: the client takes records of 512 bytes at most, and checks it."""
    said = gnutls("NORMAL", "--recordsize", "512", send=GET.replace("/headers", "/100k"))
    assert "HTTP/1.1 200 OK" in said.stdout
    assert "rror" not in said.stdout.split("HTTP/1.1 200 OK")[0]
    assert len(said.stdout) > 100_000 // 2  # as text: not every byte of it is a character


def test_rekey(gnutls):
    """KeyUpdate by both sides after the handshake, at the sign that the command line gives."""
    rekeyed = gnutls("NORMAL", "--inline-commands", send="^rekey^\n" + GET)
    assert "HTTP/1.1 200 OK" in rekeyed.stdout, rekeyed.stdout


def test_tls_1_2_is_refused(gnutls, nginx, make_edge):
    strict = make_edge({"nginx": [nginx.server]}, tls={"min_version": "1.3"})
    refused = gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.2", server=strict)
    assert refused.returncode != 0
    assert "protocol version" in refused.stdout.lower()
