"""Keys on key servers: an edge that has none, `edge keyserver` as what has them, and other people's clients."""

import dataclasses
import re
import signal
import ssl
import sys
import threading

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.client import Client
from tests.e2e.examples import run_example
from tests.e2e.processes import Process, free_port, peer, run, wait_until
from tests.e2e.server import Edge


class KeyServer:
    """`edge keyserver` with copies of some certificates' keys."""

    def __init__(self, directory, pki, certificates, *, port=None, options=()):
        self.directory = directory
        self.port = port or free_port()
        self.keys = directory / "keys"
        self.keys.mkdir(parents=True)
        self.own = pki.ca.issue(f"keys-{self.port}", "p256", "127.0.0.1")
        for certificate in certificates:
            self.add(certificate)
        self.command = [
            sys.executable, "-m", "edge", "keyserver", "--listen", f"127.0.0.1:{self.port}",
            "--chain", self.own.chain, "--key", self.own.key, "--ca", pki.ca.file, "--keys", self.keys, *options,
        ]  # fmt: skip
        self.process = None
        self.starts = 0

    def add(self, certificate):
        path = self.keys / f"{certificate.label}.key"
        path.write_bytes(certificate.key.read_bytes())
        path.chmod(0o600)

    def start(self):
        self.process = Process(self.command, self.directory / "log")
        self.starts += 1
        self.process.started(lambda: self.process.output().count("signs on") == self.starts, 30)
        return self

    def stop(self):
        assert self.process.stop(20) == 0, self.process.output()
        assert "Traceback" not in self.process.output()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


@dataclasses.dataclass
class Remote:
    """A certificate whose key the edge is not given."""

    certificate: object
    key: dict

    def table(self):
        return {**self.certificate.table(), "key": self.key}


@pytest.fixture(scope="module")
def us(pki):
    """The certificate by which key servers know the edge."""
    return pki.ca.issue("keyless-client", "p256", "edge.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture(scope="module")
def keyless(pki, us):
    """keyless(addresses, **settings): a `key` table."""

    def table(*addresses, **settings):
        return {
            "signer": "keyless", "servers": list(addresses), "ca": pki.ca.file, "chain": us.chain, "key": us.key,
            **settings,
        }  # fmt: skip

    return table


@pytest.fixture(scope="module")
def key_server(tmp_path_factory, pki):
    server = KeyServer(tmp_path_factory.mktemp("keyserver"), pki, pki.all()).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def remote(tmp_path_factory, pki, key_server, keyless, nginx):
    """An edge with every certificate and no key."""
    certificates = [Remote(c, keyless(key_server.address, timeout="20s")) for c in pki.all()]
    directory = tmp_path_factory.mktemp("remote")
    with Edge(directory, pki, {"nginx": [nginx.server]}, certificates=certificates, server={"workers": 2}) as edge:
        yield edge


def curl_is_served(edge, pki, name, version):
    asked = run(
        [
            peer("curl"), "-sS", "--cacert", pki.ca.file, f"--tlsv{version}", "--tls-max", version, "-o", "/dev/null",
            "--resolve", f"{name}:{edge.port}:127.0.0.1", "-w", "%{http_code} %{ssl_verify_result}",
            edge.url("/", name),
        ]
    )  # fmt: skip
    assert (asked.returncode, asked.stdout) == (0, "200 0"), asked.stdout


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("name", ["edge.test", "p384.edge.test", "rsa.edge.test", "ed25519.edge.test"])
def test_curl(remote, pki, name, version):
    curl_is_served(remote, pki, name, version)


@pytest.mark.parametrize(
    ("name", "version", "algorithms", "signature", "digest"),
    [
        ("rsa.edge.test", "-tls1_2", "RSA+SHA256", "RSA|rsa_pkcs1_sha256", "SHA256"),
        ("rsa.edge.test", "-tls1_2", "RSA+SHA384", "RSA|rsa_pkcs1_sha384", "SHA384"),
        ("rsa.edge.test", "-tls1_2", "RSA+SHA512", "RSA|rsa_pkcs1_sha512", "SHA512"),
        ("rsa.edge.test", "-tls1_2", "RSA-PSS+SHA256", "RSA-PSS|rsa_pss_rsae_sha256", "SHA256"),
        ("rsa.edge.test", "-tls1_3", "RSA-PSS+SHA256", "RSA-PSS|rsa_pss_rsae_sha256", "SHA256"),
        ("rsa.edge.test", "-tls1_3", "RSA-PSS+SHA384", "RSA-PSS|rsa_pss_rsae_sha384", "SHA384"),
        ("rsa.edge.test", "-tls1_3", "RSA-PSS+SHA512", "RSA-PSS|rsa_pss_rsae_sha512", "SHA512"),
        ("edge.test", "-tls1_2", "ECDSA+SHA256", "ECDSA|ecdsa_secp256r1_sha256", ""),
        ("edge.test", "-tls1_3", "ECDSA+SHA256", "ECDSA|ecdsa_secp256r1_sha256", ""),
        ("p384.edge.test", "-tls1_3", "ECDSA+SHA384", "ECDSA|ecdsa_secp384r1_sha384", "SHA384"),
        ("ed25519.edge.test", "-tls1_2", "ed25519", "Ed25519", ""),
        ("ed25519.edge.test", "-tls1_3", "ed25519", "Ed25519", ""),
    ],
)
def test_openssl(remote, pki, name, version, algorithms, signature, digest):  # noqa: PLR0917
    """`signature`: what OpenSSL 3.0 and 3.5 call it."""
    said = run(
        [
            peer("openssl"), "s_client", "-connect", f"127.0.0.1:{remote.port}", "-servername", name, version,
            "-sigalgs", ":".join(dict.fromkeys((algorithms, "ECDSA+SHA256"))), "-CAfile", pki.ca.file,
            "-verify_return_error", "-brief", "-verify_hostname", name,
        ],
        input="",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout
    assert re.search(rf"^Signature type: ({signature})$", said.stdout, re.MULTILINE | re.IGNORECASE), said.stdout
    assert not digest or f"Hash used: {digest}" in said.stdout, said.stdout


def test_no_key_no_handshake_and_nobody_else_is_harmed(pki, keyless, make_edge, nginx):
    port = free_port()
    edge = make_edge(
        {"nginx": [nginx.server]},
        certificates=[pki.default, Remote(pki.rsa, keyless(f"127.0.0.1:{port}", timeout="300ms"))],
    )
    with Client(edge) as kept:
        assert kept.get("/").status == 200
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
                Client(edge, name="rsa.edge.test")
        assert kept.get("/").status == 200
        with Client(edge) as fresh:
            assert fresh.get("/").status == 200
    edge.wait_error(rf"signer of rsa\.edge\.test.*key server 127\.0\.0\.1:{port}: connection refused")


def test_a_server_that_is_killed_costs_no_handshake(tmp_path, pki, keyless, make_edge, nginx):
    servers = [KeyServer(tmp_path / str(i), pki, [pki.default]).start() for i in range(2)]
    edge = make_edge(
        {"nginx": [nginx.server]},
        certificates=[Remote(pki.default, keyless(*(s.address for s in servers), timeout="20s"))],
        tls={"tickets": {"enabled": False}},
    )
    faults, done, stopping = [], [], threading.Event()

    def clients():
        while not stopping.is_set():
            try:
                with Client(edge, seconds=30) as client:
                    assert client.get("/").status == 200
                done.append(1)
            except Exception as error:
                faults.append(error)

    def more(count):
        end = len(done) + count
        wait_until(lambda: len(done) >= end or faults, 30, "handshakes")

    threads = [threading.Thread(target=clients) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for server in servers:
            more(20)
            server.process.kill()
            more(20)
            server.start()
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
        for server in servers:
            server.stop()
    assert faults == []


def test_a_slow_key_server_holds_nobody_up(pki, keyless, make_edge, nginx):
    """It accepts, and never says a word."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        edge = make_edge(
            {"nginx": [nginx.server]}, certificates=[pki.default, Remote(pki.rsa, keyless(address, timeout="2s"))]
        )
        failed = []

        def handshake():
            try:
                Client(edge, name="rsa.edge.test", seconds=30)
            except OSError as error:
                failed.append(error)

        waiting = [threading.Thread(target=handshake) for _ in range(20)]
        for thread in waiting:
            thread.start()
        with Client(edge) as client:
            for _ in range(50):
                assert client.get("/").status == 200
            assert not failed
        for thread in waiting:
            thread.join(60)
        assert len(failed) == 20
        assert all("INTERNAL_ERROR" in str(error) for error in failed)


def test_keys_are_added_by_sighup(tmp_path, pki, keyless, make_edge, nginx):
    server = KeyServer(tmp_path / "keys", pki, [pki.default]).start()
    edge = make_edge(
        {"nginx": [nginx.server]},
        certificates=[Remote(c, keyless(server.address, timeout="2s")) for c in (pki.default, pki.rsa)],
    )
    with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        Client(edge, name="rsa.edge.test")
    edge.wait_error("answers key not found")
    said = server.process.output()
    assert re.search(r"warning \[\d+\] 127\.0\.0\.1:\d+: no key [0-9a-f]{40} \(for rsa\.edge\.test\)", said), said
    (server.keys / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
    server.process.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: "nothing has changed: " in server.process.output(), 30, "the refusal")
    assert "broken.key: the private key cannot be read" in server.process.output()
    (server.keys / "broken.key").unlink()
    server.add(pki.rsa)
    server.process.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: "read again: 2 keys" in server.process.output(), 30, "the reload")
    with Client(edge, name="rsa.edge.test") as client:
        assert client.get("/").status == 200
    server.stop()
    assert "ended after 1 signatures and 1 requests that were refused" in server.process.output()


def test_the_example(tmp_path):
    with run_example("keyless", tmp_path) as running:
        assert not (running.directory / "key.pem").exists()
        status, body = running.curl("/")
        assert status == 200, running.log
        assert body


def test_the_workers_have_no_key(remote, pki):
    """Not in the configuration, and not in their memory."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = load_pem_private_key(pki.default.key.read_bytes(), None).private_numbers().private_value
    for worker in remote.workers():
        found = 0
        with open(f"/proc/{worker}/maps") as maps, open(f"/proc/{worker}/mem", "rb") as memory:
            for line in maps:
                place, rights = line.split()[:2]
                if "rw" not in rights or "vvar" in line or "vsyscall" in line:
                    continue
                begin, end = (int(part, 16) for part in place.split("-"))
                memory.seek(begin)
                content = memory.read(end - begin)
                found += sum(content.count(secret.to_bytes(32, order)) for order in ("big", "little"))
        assert found == 0
