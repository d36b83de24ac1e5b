"""OCSP responses and compressed certificates, as other people's clients see them."""

import datetime
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.e2e.processes import peer, run, wait_until
from tests.e2e.server import Edge

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"
DAY = datetime.timedelta(days=1)


def response(pki, certificate, end=DAY):
    """An OCSP response of the authority for a certificate, in DER."""
    now = datetime.datetime.now(datetime.UTC)
    leaf = x509.load_pem_x509_certificate(certificate.chain.read_bytes())
    issuer, key = pki.ca._certificate, pki.ca._key
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf, issuer=issuer, algorithm=hashes.SHA1(), cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=now - 2 * DAY, next_update=now + end, revocation_time=None, revocation_reason=None,
    )  # fmt: skip
    # GnuTLS looks for the signer in the response alone.
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer).certificates([issuer])
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def stapling(tmp_path_factory, pki, nginx):
    edge = Edge(tmp_path_factory.mktemp("stapling"), pki, {"nginx": [nginx.server]})
    edge.staple = edge.directory / "staple.der"
    edge.staple.write_bytes(response(pki, pki.default))
    edge.tables["certificate"][0]["ocsp"] = str(edge.staple)
    with edge:
        yield edge


def s_client(edge, pki, *options):
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-ign_eof", "-CAfile", pki.ca.file]
    done = run([*command, "-servername", "edge.test", "-verify_return_error", *options], input=GET, seconds=20)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stdout
    return done.stdout


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_openssl(stapling, pki, version):
    said = s_client(stapling, pki, "-status", version)
    assert "OCSP Response Status: successful (0x0)" in said
    assert "Cert Status: good" in said
    assert "OCSP Response Status" not in s_client(stapling, pki, version)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_gnutls(stapling, pki, tmp_path, version):
    saved = tmp_path / "saved.der"
    command = [peer("gnutls-cli"), "--port", stapling.port, "--sni-hostname", "edge.test", "--verify-hostname",
               "edge.test", "--x509cafile", pki.ca.file, "--save-ocsp", saved, "127.0.0.1", "--priority",
               f"NORMAL:-VERS-ALL:+VERS-TLS{version}"]
    done = run(command, input=GET, seconds=20)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stdout
    assert "Status: The certificate is trusted" in done.stdout
    assert saved.read_bytes() == stapling.staple.read_bytes()


def test_an_expired_response_is_left_out_at_the_reload(stapling, pki):
    fresh = stapling.staple.read_bytes()
    since = stapling.mark()
    stapling.staple.write_bytes(response(pki, pki.default, end=-DAY))
    try:
        stapling.reload()
        stapling.wait_error(r"generation \d+ serves", since)
        # The worker before may take one more connection after the new one has begun.
        wait_until(lambda: "OCSP Response Status" not in s_client(stapling, pki, "-status"), 10, "no response")
        assert "expired on" in stapling.wait_error(r"the OCSP response expired on", since)
    finally:
        stapling.staple.write_bytes(fresh)
        since = stapling.mark()
        stapling.reload()
        stapling.wait_error(r"generation \d+ serves", since)
    wait_until(lambda: "Cert Status: good" in s_client(stapling, pki, "-status"), 10, "the response")


def test_a_client_that_wants_no_compression(stapling, pki):
    """OpenSSL 3.2 and later offer compression where they are built with it: all do without it, too."""
    known = subprocess.run([peer("openssl"), "s_client", "-help"], capture_output=True, text=True, check=False).stderr
    option = ["-no_rx_cert_comp"] if "-no_rx_cert_comp" in known else []
    assert "Verify return code: 0 (ok)" in s_client(stapling, pki, *option)
