"""Clients that are asked for certificates: who is served, who is told what, by several clients; and the key log."""

import dataclasses
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.pki import KEYS, Authority
from tests.e2e.processes import peer, run, wait_until
from tests.e2e.server import Edge

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Client:
    """The files of a client's certificate."""

    chain: Path
    key: Path


def issue(authority, label, kind, *names):
    key = KEYS[kind]()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    issuer = authority._key.public_key()
    builder = (
        authority._builder(subject, key.public_key())
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    client = Client(authority.directory / f"{label}.pem", authority.directory / f"{label}.key")
    client.chain.write_bytes(builder.sign(authority._key, hashes.SHA256()).public_bytes(Encoding.PEM))
    client.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return client


@pytest.fixture(scope="module")
def clients(pki, tmp_path_factory):
    """Certificates by name: of the authority that is asked for, one for servers, and one of a stranger."""
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    return {
        **{kind: issue(pki.ca, f"client-{kind}", kind, "client.test") for kind in ("p256", "rsa", "ed25519")},
        "nameless": issue(pki.ca, "client-nameless", "p256"),
        "server": pki.ca.issue("no-client", "p256", "client.test"),
        "stranger": issue(stranger, "stranger", "p256", "client.test"),
    }


@pytest.fixture(scope="module", params=["require", "request"])
def asking(request, tmp_path_factory, pki, nginx):
    tls = {"client_auth": {"mode": request.param, "ca": pki.ca.file}}
    with Edge(tmp_path_factory.mktemp(request.param), pki, {"nginx": [nginx.server]}, tls=tls) as edge:
        edge.mode = request.param
        yield edge


def curl(edge, pki, client=None, *options):
    command = [peer("curl"), "--silent", "--show-error", "--http1.1", "--cacert", pki.ca.file, "--max-time", "20"]
    command += ["--resolve", f"*:{edge.port}:127.0.0.1", "--output", "/dev/null", "--write-out", "%{http_code}"]
    if client:
        command += ["--cert", client.chain, "--key", client.key]
    return run([*command, *options, edge.url("/1k", "edge.test")], seconds=30)


def s_client(edge, pki, client=None, *options):
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-ign_eof", "-CAfile", pki.ca.file,
               "-servername", "edge.test", "-verify_return_error"]
    if client:
        command += ["-cert", client.chain, "-key", client.key]
    return run([*command, *options], input=GET, seconds=20)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519", "nameless"])
def test_trusted(asking, pki, clients, kind, version):
    process = curl(asking, pki, clients[kind], f"--tlsv{version}", "--tls-max", version)
    assert process.stdout == "200", process.stdout


# certificate_required is an alert of TLS 1.3; of an older version it is handshake_failure (RFC 5246, section 7.4.6).
@pytest.mark.parametrize(("version", "alert"), [("1.2", "handshake_failure"), ("1.3", "certificate_required")])
def test_without(asking, pki, version, alert):
    process = curl(asking, pki, None, f"--tlsv{version}", "--tls-max", version)
    if asking.mode == "request":
        assert process.stdout == "200"
        return
    assert process.returncode != 0
    assert re.search(alert.replace("_", "."), process.stdout, re.IGNORECASE), process.stdout
    asking.wait_error(f"handshake failed: {alert}: the client has no certificate")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("who", ["stranger", "server"])
def test_distrusted(asking, pki, clients, who, version):
    alert = {"stranger": "unknown.ca", "server": "bad.certificate"}[who]
    process = s_client(asking, pki, clients[who], version)
    assert "HTTP/1.1 200" not in process.stdout
    assert re.search(alert, process.stdout, re.IGNORECASE), process.stdout
    asking.wait_error("handshake failed: .*the certificate is not trusted")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_names_of_authorities_are_sent(asking, pki, clients, version):
    said = s_client(asking, pki, clients["p256"], version).stdout
    assert "HTTP/1.1 200 OK" in said
    assert re.search("Acceptable client certificate CA names\nCN ?= ?edge test CA", said), said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_resumed(asking, pki, clients, tmp_path, version):
    """A session stands for the certificate that it began with, and is not shown again."""
    session = tmp_path / "session"
    assert "HTTP/1.1 200 OK" in s_client(asking, pki, clients["rsa"], version, "-sess_out", session).stdout
    said = s_client(asking, pki, None, version, "-sess_in", session).stdout
    assert "HTTP/1.1 200 OK" in said
    assert "\nReused, " in said, said


@pytest.mark.parametrize("priority", ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"])
def test_gnutls(asking, pki, clients, priority):
    client = clients["p256"]
    process = run(
        [peer("gnutls-cli"), "--x509cafile", pki.ca.file, "--x509certfile", client.chain, "--x509keyfile", client.key,
         "--sni-hostname", "edge.test", "--verify-hostname", "edge.test", "--priority", priority,
         "-p", str(asking.port), "127.0.0.1"],
        input=GET, seconds=20)
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout


def test_key_log(make_edge, pki, nginx, tmp_path):
    log = tmp_path / "keys.log"
    theirs = tmp_path / "client.log"
    edge = make_edge({"nginx": [nginx.server]}, tls={"key_log": {"path": log, "clients": ["127.0.0.0/8"]}})
    assert log.stat().st_mode & 0o777 == 0o600
    edge.wait_error("tls.key_log: the secrets of connections from 127.0.0.0/8 go to")
    for version in ("-tls1_3", "-tls1_2"):
        process = s_client(edge, pki, None, version, "-keylogfile", theirs)
        assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    lines = [line for line in theirs.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 6
    wait_until(lambda: set(lines) == set(log.read_text().splitlines()), 10, f"{lines} in {log.read_text()}")
    edge.tables["tls"]["key_log"]["clients"] = ["192.0.2.0/24"]
    edge.write()
    since = edge.mark()
    edge.reload()
    edge.wait_error("generation 2 serves", since, 10)
    log.write_text("")
    for version in ("-tls1_3", "-tls1_2"):
        assert "HTTP/1.1 200 OK" in s_client(edge, pki, None, version).stdout
    edge.stop()
    assert log.read_text() == ""
