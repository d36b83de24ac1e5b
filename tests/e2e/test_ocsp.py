"""OCSP responses that are fetched from OpenSSL's responder, and stapled to OpenSSL's client."""

import dataclasses
import datetime
import os
import pwd
import re
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.e2e.examples import run_example
from tests.e2e.processes import Process, free_port, peer, run, wait_until
from tests.e2e.server import Edge

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"


class Responder:
    """`openssl ocsp`, by an index that the test writes."""

    def __init__(self, directory, ca):
        self.directory, self.ca = directory, ca
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.index = directory / "index.txt"
        self.index.write_text("")
        self.key = directory / "ca.key"
        self.key.write_bytes(ca._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.process = None

    def write(self, certificate, status):
        """V: valid, R: revoked."""
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
        gone = f"{datetime.datetime.now(datetime.UTC):%y%m%d%H%M%SZ}" if status == "R" else ""
        self.index.write_text(f"{status}\t{end:%y%m%d%H%M%SZ}\t{gone}\t{certificate.serial:X}\tunknown\t/CN=x\n")

    def start(self):
        command = [peer("openssl"), "ocsp", "-index", self.index, "-port", self.port, "-rsigner", self.ca.file]
        command += ["-rkey", self.key, "-CA", self.ca.file, "-ndays", "2"]
        self.process = Process([*map(str, command)], self.directory / f"responder{os.urandom(2).hex()}.log")
        self.process.started(lambda: "waiting for OCSP client" in self.process.output(), 15)
        return self

    def stop(self):
        if self.process:
            self.process.stop(10)
            self.process = None


@pytest.fixture
def responder(tmp_path, pki):
    made = Responder(tmp_path, pki.ca)
    yield made
    made.stop()


def issue(pki, directory, url, *, must_staple=True):
    """A certificate, with its issuer's behind it, that names the responder."""
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
    extensions = [x509.AuthorityInformationAccess([access])]
    if must_staple:
        extensions.append(x509.TLSFeature([x509.TLSFeatureType.status_request]))
    made = pki.ca.issue(f"ocsp-{os.urandom(4).hex()}", "p256", "edge.test", extensions=extensions)
    chain = directory / "own.pem"
    chain.write_bytes(made.chain.read_bytes() + pki.ca.file.read_bytes())
    (directory / "own.key").write_bytes(made.key.read_bytes())
    return dataclasses.replace(made, chain=chain, key=directory / "own.key")


def stapled(edge):
    """What OpenSSL's client says of the response beside the certificate: its status, or None without one."""
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test", "-status"]
    done = run([*command, "-CAfile", edge.pki.ca.file, "-ign_eof"], input=GET, seconds=20)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stdout
    found = re.search(r"Cert Status: (\w+)", done.stdout)
    return found and found[1]


@pytest.fixture
def make(tmp_path, pki, nginx, responder):
    """make(must_staple=..., **settings) -> a server with such a certificate, not started."""
    servers = []

    def do(ocsp=None, must_staple=True, **server):
        own = issue(pki, tmp_path, responder.url, must_staple=must_staple)
        edge = Edge(
            tmp_path / f"edge{len(servers)}",
            pki,
            {"nginx": [nginx.server]},
            certificates=[own],
            server={"workers": 2, "certificate_check": "1s", **server},
        )
        edge.own = own
        if ocsp:
            edge.tables["certificate"][0]["ocsp"] = ocsp
        servers.append(edge)
        return edge

    yield do
    for edge in servers:
        if edge.process:
            edge.stop()


def fetching(edge):
    """The processes that fetch."""
    return edge.titled("edge: ocsp")


def test_a_response_is_fetched_stapled_kept_and_renewed(make, responder, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    edge = make(cache_dir=str(cache))
    responder.write(edge.own, "V")
    responder.start()
    edge.start()
    edge.wait_error("OCSP response until", seconds=30)
    wait_until(lambda: stapled(edge) == "good", 30, "a staple")
    # Every worker has it.
    assert [stapled(edge) for _ in range(4)] == ["good"] * 4
    (file,) = (cache / "ocsp").iterdir()
    # A worker that starts later has it with its first connection, and another process fetches where one has died.
    (pid,) = fetching(edge)
    os.kill(pid, 9)
    wait_until(lambda: fetching(edge) not in ([], [pid]), 30, "another process that fetches")
    edge.wait_error("the process that fetches OCSP responses has ended")

    # After a restart it is there at once, though the responder is not.
    edge.stop()
    edge.error_log.unlink()
    responder.stop()
    edge.start()
    assert [stapled(edge) for _ in range(3)] == ["good"] * 3
    # What is damaged is not taken: a reload keeps what it has, a start has none until the file is right again.
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    edge.reload()
    edge.wait_error("generation 2 serves")
    assert [stapled(edge) for _ in range(3)] == ["good"] * 3
    edge.stop()
    edge.start()
    assert [stapled(edge) for _ in range(3)] == [None] * 3
    file.write_bytes(whole)
    wait_until(lambda: stapled(edge) == "good", 30, "the staple again")


def test_a_certificate_that_demands_a_response_waits_for_it(make, responder, pki, tmp_path):
    """The next certificate is served once it has its response; until then the one before goes on."""
    edge = make()
    responder.write(edge.own, "V")
    responder.start()
    edge.start()
    wait_until(lambda: stapled(edge) == "good", 30, "a staple")
    responder.stop()
    since = edge.mark()
    renewed = issue(pki, tmp_path, responder.url)
    edge.wait_error("no OCSP response: .*clients get none", since, seconds=30)
    assert stapled(edge) == "good"
    assert not edge.in_error_log(f"serial {renewed.serial:x}", since)
    responder.write(renewed, "V")
    responder.start()
    edge.wait_error(f"serial {renewed.serial:x}", since, seconds=60)
    assert {stapled(edge) for _ in range(4)} == {"good"}


@pytest.mark.parametrize(
    ("status", "words"), [("R", "the certificate is revoked"), ("", "does not know the certificate")]
)
def test_what_is_not_good_is_not_stapled(make, responder, status, words):
    edge = make(ocsp="fetch", must_staple=False)
    if status:
        responder.write(edge.own, status)
    responder.start()
    edge.start()
    edge.wait_error(words, seconds=30)
    assert stapled(edge) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its privileges up")
def test_who_fetches_has_no_privileges_and_ends_with_the_master(make, responder):
    nobody = pwd.getpwnam("nobody").pw_uid
    edge = make(user="nobody")
    responder.write(edge.own, "V")
    responder.start()
    edge.start()
    wait_until(lambda: stapled(edge) == "good", 30, "a staple")
    (pid,) = fetching(edge)
    assert set(re.search(r"^Uid:(.*)", Path(f"/proc/{pid}/status").read_text(), re.M)[1].split()) == {str(nobody)}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    bound = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{edge.port:04X} " in line]
    assert len(bound) > 0 and held.isdisjoint(f"socket:[{fields[9]}]" for fields in bound)
    directory = next(path for path in Path(tempfile.gettempdir()).glob("edge-*/ocsp") if path.stat().st_uid == nobody)
    assert directory.parent.stat().st_uid == 0
    edge.signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30, "its end")
    edge.process.kill()
    edge.process = None
    shutil.rmtree(directory.parent)


def test_nothing_is_fetched_unasked(make):
    edge = make(must_staple=False).start()
    assert fetching(edge) == []
    assert stapled(edge) is None


def test_the_example(tmp_path):
    with run_example("stapling", tmp_path) as running:
        def status():
            return running.curl("/request", "--cert-status")[0]

        wait_until(lambda: status() == 200, 60, "a staple")
        assert re.search(r"warning .* certificate number 1 .* expires on ", running.log), running.log
        (running.directory / "renew").touch()
        wait_until(lambda: re.search(r"for localhost, serial \w+, until ", running.log), 60, "the next certificate")
        assert status() == 200
