"""Delegated credentials, from `edge delegate` to NSS's client, which takes them, and OpenSSL's, which does not."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.examples import run_example
from tests.e2e.processes import ROOT, peer, run, wait_until
from tests.e2e.server import Edge
from tests.e2e.test_keyless import KeyServer

GET = "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
USAGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.44363.44"), b"\x05\x00")
TAKEN = "Received a Delegated Credential"


@pytest.fixture(scope="module")
def tstclnt(tmp_path_factory):
    """tstclnt(port, ca, name, *options) -> what it says."""
    directory = tmp_path_factory.mktemp("nss")
    program = peer("tstclnt", "/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
    if "delegated" not in subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stderr:
        pytest.skip("this tstclnt knows no delegated credentials (-B)")

    def call(port, ca, name, *options, path="/1k"):
        database = directory / ca.parent.name
        if not database.exists():
            database.mkdir()
            for command in (["-N", "--empty-password"], ["-A", "-n", "ca", "-t", "C,,", "-i", ca]):
                assert run([peer("certutil"), "-d", f"sql:{database}", *command]).returncode == 0
        request = database / "request"
        request.write_text(GET.format(name=name, path=path))
        with open(request) as stdin:
            command = [program, "-h", "127.0.0.1", "-p", port, "-a", name, "-d", f"sql:{database}"]
            done = run([*command, "-V", "tls1.2:tls1.3", *options], stdin=stdin, seconds=20)
        assert "HTTP/1.1 200 OK" in done.stdout, done.stdout
        return done.stdout

    return call


def delegate(edge, *options):
    command = [sys.executable, "-m", "edge", "delegate", "--config", edge.config, *options]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)


@pytest.fixture
def delegating(tmp_path, pki, nginx):
    """A server whose certificate may delegate, with the files of a delegated credential that are not there yet."""
    made = pki.ca.issue("delegating", "p256", "edge.test", extensions=[USAGE])
    own = dataclasses.replace(made, names=("edge.test",))
    edge = Edge(tmp_path / "edge", pki, {"nginx": [nginx.server]}, certificates=[own],
                server={"workers": 2, "certificate_check": "1s"})  # fmt: skip
    edge.credential, edge.delegated_key = tmp_path / "dc.bin", tmp_path / "dc.key"
    edge.tables["certificate"][0]["delegated"] = {"credential": edge.credential, "key": edge.delegated_key}
    edge.write()
    yield edge
    if edge.process:
        edge.stop()


def s_client(edge, *options):
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test"]
    command += ["-CAfile", edge.pki.ca.file, "-verify_return_error", "-ign_eof", *options]
    done = run(command, input=GET.format(name="edge.test", path="/1k"), seconds=20)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stdout


def test_who_takes_it_gets_it_and_all_others_the_certificate(delegating, tstclnt):
    edge = delegating
    ca = edge.pki.ca.file
    assert f"{edge.credential}: delegated until" in delegate(edge, "--once").stdout
    edge.start()
    assert TAKEN in tstclnt(edge.port, ca, "edge.test", "-B")
    assert TAKEN not in tstclnt(edge.port, ca, "edge.test")
    assert TAKEN not in tstclnt(edge.port, ca, "edge.test", "-B", "-V", "tls1.2:tls1.2")
    s_client(edge)
    s_client(edge, "-tls1_2")

    # Another one, without a restart; what there was before is gone.
    workers = edge.workers()
    for _ in range(2):
        before, since = edge.credential.read_bytes(), edge.mark()
        delegate(edge, "--lifetime", "3d")
        assert edge.credential.read_bytes() != before
        edge.wait_error("delegated until", since, seconds=30)
        assert TAKEN in tstclnt(edge.port, ca, "edge.test", "-B")
    s_client(edge)
    assert edge.workers() == workers

    # One that does not fit its key changes nothing.
    since = edge.mark()
    edge.delegated_key.write_bytes(edge.tables["certificate"][0]["key"].encode())
    edge.wait_error(r"certificate\[0\]\.delegated\.key: .*the certificate before goes on", since, seconds=30)
    assert TAKEN in tstclnt(edge.port, ca, "edge.test", "-B")


def test_one_signature_of_a_key_that_stays_elsewhere(delegating, tstclnt, tmp_path, pki):
    """It is all that who takes the credential costs: the key server may be gone then."""
    edge = delegating
    table = edge.tables["certificate"][0]
    own = dataclasses.make_dataclass("Own", ["label", "key"])("own", Path(table["key"]))
    server = KeyServer(tmp_path / "keys", pki, [own]).start()
    us = pki.ca.issue("delegating-us", "p256", "edge.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    table["key"] = {"signer": "keyless", "servers": [server.address]}
    table["key"] |= {"ca": pki.ca.file, "chain": us.chain, "key": us.key}
    edge.write()
    delegate(edge)
    server.stop()
    assert "ended after 1 signatures" in server.process.output()
    edge.start()
    assert TAKEN in tstclnt(edge.port, pki.ca.file, "edge.test", "-B")
    failed = run([peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test"])
    assert "internal error" in failed.stdout.lower()
    # Without a key server there is no other one, and what there was stays.
    before = edge.credential.read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        delegate(edge)
    assert server.address in caught.value.stderr and "Traceback" not in caught.value.stderr
    assert edge.credential.read_bytes() == before


def test_the_example(tstclnt, tmp_path):
    with run_example("delegated", tmp_path) as running:
        status, _ = running.curl("/request")
        assert status == 200
        assert TAKEN in tstclnt(running.port, running.ca, "localhost", "-B", path="/request")
        assert TAKEN not in tstclnt(running.port, running.ca, "localhost", path="/request")
        wait_until(lambda: "delegated until" in running.log, 30, "what edge delegate says")
