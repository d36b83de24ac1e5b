"""TLS 1.2 with curl, OpenSSL, GnuTLS and NSS: each suite and kind of certificate, groups, and what is refused."""

import re

import pytest

from tests.e2e.processes import peer, run

GET = "GET /headers HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}


def answered(process) -> str:
    assert process.returncode == 0, process.stdout
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    return process.stdout


def certificate_for(suite) -> str:
    return "rsa.edge.test" if "RSA-" in suite.replace("ECDSA-", "") else "edge.test"


# --- curl

@pytest.fixture(scope="module")
def curl(edge, pki):
    program = peer("curl")

    def call(path, *options, host="edge.test"):
        command = [program, "--silent", "--show-error", "--http1.1", "--cacert", pki.ca.file, "--max-time", "50"]
        command += ["--resolve", f"*:{edge.port}:127.0.0.1", "--tls-max", "1.2", *options]
        return run([*command, edge.url(path, host)], seconds=60)

    return call


@pytest.mark.parametrize("suite", SUITES)
def test_curl_and_what_the_log_says(curl, edge, suite):
    path = f"/headers?{suite}"
    asked = curl(path, "--ciphers", suite, host=certificate_for(suite))
    assert asked.returncode == 0, asked.stdout
    logged = edge.wait_request(path=path)
    assert (logged["tls"], logged["cipher"]) == ("TLSv1.2", SUITES[suite])


def test_curl_loads_and_sends_much(curl, nginx):
    loaded = curl("/10m", "--write-out", "%{size_download}", "--output", "/dev/null")
    assert loaded.stdout == str(10 << 20), loaded.stdout


# --- OpenSSL

@pytest.fixture(scope="module")
def s_client(edge, pki):
    program = peer("openssl")

    def call(*options, name="edge.test", server=edge, send=GET):
        command = [program, "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", pki.ca.file]
        command += ["-servername", name, "-tls1_2", "-verify_return_error", "-verify_hostname", name]
        # Without -ign_eof letters are commands.
        command += [] if send == "R\n" else ["-ign_eof"]
        return run([*command, *options], input=send.format(name=name), seconds=20)

    return call


@pytest.mark.parametrize("suite", SUITES)
def test_s_client_suites(s_client, suite):
    said = answered(s_client("-cipher", suite, name=certificate_for(suite)))
    assert f"TLSv1.2, Cipher is {suite}" in said
    assert "Secure Renegotiation IS supported" in said
    assert "Extended master secret: yes" in said


@pytest.mark.parametrize(
    ("group", "shown"), [("X25519", "X25519"), ("P-256", "prime256v1|P-256"), ("P-384", "secp384r1|P-384")]
)
def test_s_client_groups(s_client, group, shown):
    # The certificate's own curve must be among them (RFC 8422, section 5.1), so that one is Ed25519's.
    said = answered(s_client("-groups", group, "-sigalgs", "ed25519:ECDSA+SHA256", name="ed25519.edge.test"))
    # "Server Temp Key" until OpenSSL 3.2, "Peer Temp Key" since.
    assert re.search(rf"(Server|Peer) Temp Key: (ECDH, )?({shown})", said), said


@pytest.mark.parametrize(("name", "sigalgs"), [
    ("edge.test", "ECDSA+SHA256"), ("edge.test", "ECDSA+SHA384:ECDSA+SHA256"),
    ("p384.edge.test", "ECDSA+SHA384:ECDSA+SHA256"),
    ("rsa.edge.test", "RSA+SHA256:ECDSA+SHA256"), ("rsa.edge.test", "RSA-PSS+SHA512:ECDSA+SHA256"),
    ("rsa.edge.test", "RSA+SHA512:ECDSA+SHA256"), ("ed25519.edge.test", "ed25519:ECDSA+SHA256"),
])
def test_s_client_certificates_and_algorithms(s_client, name, sigalgs):
    answered(s_client("-sigalgs", sigalgs, name=name))


def test_s_client_cannot_renegotiate(s_client, edge):
    """R starts a renegotiation: nothing is answered but the alert."""
    since = edge.mark()
    said = s_client(send="R\n").stdout
    assert "no renegotiation" in said, said
    edge.wait_error("no_renegotiation", since)


def test_s_client_that_falls_back(s_client):
    assert "inappropriate fallback" in s_client("-fallback_scsv").stdout


def test_fallback_is_fine_where_there_is_nothing_better(s_client, nginx, make_edge):
    old = make_edge({"nginx": [nginx.server]}, tls={"max_version": "1.2"})
    answered(s_client("-fallback_scsv", server=old))


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_s_client_suites_that_are_not_spoken(s_client, edge, suite):
    since = edge.mark()
    refused = s_client("-cipher", suite)
    assert "handshake failure" in refused.stdout, refused.stdout
    edge.wait_error("handshake failed: .*handshake_failure", since)


# --- GnuTLS

@pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"])
@pytest.mark.parametrize("name", ["edge.test", "rsa.edge.test"])
@pytest.mark.parametrize("options", ["", ":%NO_SESSION_HASH"])
def test_gnutls(edge, pki, cipher, name, options):
    """With and without the extended master secret (GnuTLS calls it session hash)."""
    priority = "NONE:+VERS-TLS1.2:+SIGN-ALL:+AEAD:+COMP-ALL:+CTYPE-X509:+ECDHE-ECDSA:+ECDHE-RSA:+GROUP-ALL"
    priority += f":+{cipher}{options}"
    command = [peer("gnutls-cli"), "--port", edge.port, "--sni-hostname", name, "--verify-hostname", name]
    command += ["--x509cafile", pki.ca.file, "--priority", priority, "127.0.0.1"]
    said = answered(run(command, input=GET.format(name=name), seconds=20))
    assert "(TLS1.2-X.509)" in said
    assert f"({cipher})" in said
    assert ("extended master secret" in said.lower()) == (not options)


# --- NSS

@pytest.mark.parametrize("suite", SUITES.values())
def test_nss(edge, tstclnt, suite):
    numbers = dict(zip(SUITES.values(), ("C02B", "C02C", "CCA9", "C02F", "C030", "CCA8"), strict=True))
    name = "rsa.edge.test" if "_RSA_" in suite else "edge.test"
    said = tstclnt("-c", f":{numbers[suite]}", name=name)
    assert "HTTP/1.1 200 OK" in said.stdout, said.stdout


@pytest.fixture(scope="module")
def tstclnt(edge, pki, tmp_path_factory):
    program = peer("tstclnt", "/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
    directory = tmp_path_factory.mktemp("nss12")
    for command in (["-N", "--empty-password"], ["-A", "-n", "test-ca", "-t", "C,,", "-i", pki.ca.file]):
        made = run([peer("certutil"), "-d", f"sql:{directory}", *command])
        assert made.returncode == 0, made.stdout

    def call(*options, name):
        request = directory / "request"
        request.write_text(GET.format(name=name))
        command = [program, "-h", "127.0.0.1", "-p", edge.port, "-a", name, "-d", f"sql:{directory}"]
        with open(request) as stdin:    # at the end of a pipe it spins
            return run([*command, "-V", "tls1.2:tls1.2", *options], stdin=stdin, seconds=20)

    return call
