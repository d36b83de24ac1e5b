"""Certificates whose files change while the server runs, as clients see it."""

import os
import re
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509

from tests.e2e.processes import peer, run, wait_until

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"


def serial(edge, name="edge.test"):
    """Of the certificate that OpenSSL's client gets."""
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", name]
    done = run([*command, "-CAfile", edge.pki.ca.file, "-verify_return_error", "-ign_eof"], input=GET, seconds=20)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stdout
    pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", done.stdout, re.S)
    return x509.load_pem_x509_certificate(pem[0].encode()).serial_number


@pytest.fixture
def renewing(make_edge, tmp_path, pki, nginx):
    """A server with a certificate of its own, whose `renew()` writes the next one over it."""
    ca = pki.ca
    directory = tmp_path / "certificates"
    directory.mkdir()

    def write(label="own", kind="p256"):
        made = ca.issue(label, kind, "edge.test")
        for path, name in ((made.key, "own.key"), (made.chain, "own.pem")):
            (directory / name).write_bytes(path.read_bytes())
        return made.serial

    first = write()
    made = ca.issue("own", "p256", "edge.test")
    own = type(made)("own", ("edge.test",), directory / "own.pem", directory / "own.key", first)
    edge = make_edge(
        {"nginx": [nginx.server]},
        certificates=[own],
        server={"workers": 2, "certificate_check": "1s"},
    )
    edge.renew = write
    edge.own = own
    return edge


class Clients:
    """Connections without pause, in threads; a failure of any is kept, and so are all serial numbers."""

    def __init__(self, edge, count=4):
        self.edge = edge
        self.context = ssl.create_default_context(cafile=edge.pki.ca.file)
        self.failures, self.serials, self.done = [], set(), 0
        self.running = True
        self.threads = [threading.Thread(target=self.go) for _ in range(count)]

    def go(self):
        while self.running:
            try:
                raw = socket.create_connection(("127.0.0.1", self.edge.port), 20)
                with self.context.wrap_socket(raw, server_hostname="edge.test") as tls:
                    self.serials.add(int(tls.getpeercert()["serialNumber"], 16))
                    tls.sendall(GET.encode())
                    answer = b""
                    while piece := tls.recv(65536):
                        answer += piece
                assert answer.startswith(b"HTTP/1.1 200 OK"), answer[:100]
                self.done += 1
            except (OSError, AssertionError) as e:
                self.failures.append(repr(e))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.running = False
        for thread in self.threads:
            thread.join(30)


def test_a_renewed_certificate_is_served_and_no_connection_lost(renewing):
    edge = renewing
    before, workers = serial(edge), edge.workers()
    kept = socket.create_connection(("127.0.0.1", edge.port), 20)
    context = ssl.create_default_context(cafile=edge.pki.ca.file)
    with context.wrap_socket(kept, server_hostname="edge.test") as old, Clients(edge) as clients:
        wanted = [before]
        for kind in ("p256", "rsa"):
            since = edge.mark()
            wanted.append(edge.renew(kind=kind))
            said = edge.wait_error(r"certificate\[0\]: .* serial", since, seconds=30)
            assert f"serial {wanted[-1]:x}" in said
            wait_until(lambda: serial(edge) == wanted[-1], 30, "the new certificate")
            # whichever worker it comes to
            assert {serial(edge) for _ in range(6)} == {wanted[-1]}
        # A connection that was there goes on.
        old.sendall(GET.encode())
        assert old.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert clients.failures == []
    assert clients.serials == set(wanted)
    assert clients.done > 20
    assert edge.workers() == workers
    # A worker that starts later has it, too.
    for pid in workers:
        os.kill(pid, 9)
    wait_until(lambda: len(new := edge.workers()) == 2 and not set(new) & set(workers), 30, "new workers")
    assert {serial(edge) for _ in range(4)} == {wanted[-1]}


def test_a_bad_file_changes_nothing_and_is_told_once(renewing):
    edge = renewing
    before = serial(edge)
    since = edge.mark()
    good = edge.own.key.read_bytes()
    edge.own.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    said = edge.wait_error(r"holds no private key", since, seconds=30)
    assert "certificate[0].key" in said and said.endswith("the certificate before goes on")
    assert serial(edge) == before
    edge.own.key.write_bytes(good)
    assert len([m for _, m in edge.errors(since) if "holds no private key" in m]) == 1
    since = edge.mark()
    after = edge.renew()
    edge.wait_error(rf"serial {after:x}", since, seconds=30)
    assert serial(edge) == after != before


def test_sessions_are_resumed_over_a_renewal(renewing, tmp_path):
    """By the same ticket keys; the certificate is none of theirs."""
    edge = renewing
    session = tmp_path / "session"
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test"]
    command += ["-CAfile", edge.pki.ca.file, "-ign_eof"]
    run([*command, "-sess_out", session], input=GET, seconds=20)
    since = edge.mark()
    after = edge.renew()
    edge.wait_error(rf"serial {after:x}", since, seconds=30)
    assert "Reused, TLSv1.3" in run([*command, "-sess_in", session], input=GET, seconds=20).stdout


def test_a_worker_that_cannot_keeps_all_at_the_old(renewing):
    """A worker stopped in the middle holds a renewal up, and nothing is used before it has prepared it."""
    edge = renewing
    before = serial(edge)
    stopped = edge.workers()[0]
    os.kill(stopped, 19)
    try:
        edge.renew()
        time.sleep(3)
        assert not edge.in_error_log(r"certificate\[0\]: .* serial")
    finally:
        os.kill(stopped, 18)
    edge.wait_error(r"certificate\[0\]: .* serial", seconds=30)
    assert serial(edge) != before


@pytest.mark.slow
def test_a_hundred_renewals_leave_memory_as_it_was(renewing):
    edge = renewing
    for _i in range(20):
        once(edge)
    before = edge.rss()
    for _i in range(100):
        once(edge)
    after = edge.rss()
    assert all(after[pid] - before[pid] < 2 << 20 for pid in before), (before, after)


def once(edge):
    since = edge.mark()
    made = edge.renew()
    edge.wait_error(rf"serial {made:x}", since, seconds=30)
