"""Handing over between processes: Python, Go, edge with several workers; and the PROXY protocol of real proxies."""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from tests.e2e.examples import run_example
from tests.e2e.processes import Process, free_port, peer, run, wait_until
from tests.edge.conftest import certificates, edge, origin  # noqa: F401  # fixtures
from tests.edge.server import Edge

HANDED = 'kind = "handoff"\nbind = ["unix:{path}"]'


def curl(port, *arguments, ca):
    """The response's content; "" when there is none."""
    command = [peer("curl"), "-4", "--silent", "--cacert", ca, *arguments, f"https://localhost:{port}/who"]
    return run(command, seconds=30).stdout


def test_the_example(tmp_path):
    with run_example("handoff", tmp_path) as running:
        status, body = running.curl("/request")
        assert status == 200
        assert "Python serves" not in body
        status, body = running.curl("/", "--http1.1")
        assert status == 200
        assert re.fullmatch(r"Python serves (127\.0\.0\.1|::1):\d+, handed over as 'python' with \d{3,} bytes\n", body)
        status, body = running.curl("/request", "--http1.1", "--tls-max", "1.2")
        assert (status, "Python serves" in body, running.log.count("goes back to edge")) == (200, False, 1)
        status, body = running.curl("/request", "--tls-max", "1.2")
        assert status == 200        # Go is not there: served here
        go = shutil.which("go")
        if go is None:
            pytest.skip("there is no go; the rest of the example was tried")
        program = tmp_path / "receiver"
        subprocess.run([go, "build", "-o", program, "receiver.go"], cwd=running.directory, check=True, timeout=300)
        receiver = Process([program, "go.sock", "cert.pem", "key.pem"], tmp_path / "go.log", cwd=running.directory)
        try:
            receiver.started(lambda: "ready" in receiver.output())
            for _ in range(3):
                status, body = running.curl("/", "--tls-max", "1.2")
                assert (status, body[:9], body[-4:]) == (200, "Go serves", "303\n")
        finally:
            receiver.stop()


@pytest.fixture
def receiving(tmp_path, certificates, origin):  # noqa: F811
    """An edge whose second listener receives connections, and the path of its socket."""
    path = tmp_path / "handoff.sock"
    (tmp_path / "receiving").mkdir()
    for name in ("localhost.pem", "localhost.key"):
        (tmp_path / "receiving" / name).write_bytes((certificates / name).read_bytes())
    made = Edge(tmp_path / "receiving", certificates / "ca.pem")
    made.configure(origin, extra=f"[[listener]]\n{HANDED.format(path=path)}\n[tls]\nearly_data = {{}}\n")
    yield made, path
    made.close()


def test_from_edge_to_edge_with_workers_that_are_replaced(edge, origin, receiving, certificates, tmp_path):  # noqa: F811
    behind, path = receiving
    behind.start()
    assert path.stat().st_mode & 0o777 == 0o600
    rule = f'name = "all"\nsocket = "unix:{path}"\nmatch = {{ sni = ["localhost"] }}\n'
    edge.configure(origin, extra=f"[[handoff]]\n{rule}")
    edge.start()
    for _ in range(10):
        assert edge.get().status == 200
    assert edge.log().count("handshake failed") == 0
    behind.file.write_text(behind.file.read_text().replace("workers = 2", "workers = 3") + "\n")
    inode = path.stat().st_ino
    behind.signal(signal.SIGHUP)
    while "generation 2 serves" not in behind.log():
        assert edge.get().status == 200
    wait_until(lambda: len(behind.workers()) == 3, 30)
    for _ in range(10):
        assert edge.get().status == 200
    assert path.stat().st_ino == inode
    for pid in behind.workers():
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in behind.workers() and len(behind.workers()) == 3, 30)
        assert edge.get().status == 200
    session = tmp_path / "session"
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "localhost", "-tls1_3",
               "-CAfile", str(certificates / "ca.pem"), "-ign_eof"]
    request = "GET /early HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    first = run([*command, "-sess_out", session], input=request, seconds=30)
    assert "New, TLSv1.3" in first.stdout
    early = tmp_path / "early"
    early.write_text(request)
    second = run([*command, "-sess_in", session, "-early_data", early], input="", seconds=30)
    assert "Reused, TLSv1.3" in second.stdout
    assert "Early data was accepted" in second.stdout
    assert "HTTP/1.1 200" in second.stdout
    behind.stop()
    assert not path.exists()
    assert "Traceback" not in behind.log() + edge.log()


def test_a_path_that_is_taken_and_one_that_was_left(receiving):
    behind, path = receiving
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as taken:
        taken.bind(str(path))
        taken.listen()
        behind.start(generation=0)
        assert behind.process.wait(30) == 1
        assert "nobody else listens" in behind.log()
    assert path.exists()
    behind.start()
    assert behind.get().status == 200
    assert behind.stop() == 0
    assert not path.exists()


PROXY = 'proxy_protocol = { proxies = ["127.0.0.0/8", "::1"] }\n'


def proxied(edge, origin):  # noqa: F811
    edge.configure(origin, server='workers = 1\naccess_log = { path = "access.log" }')
    edge.file.write_text(edge.file.read_text().replace("[[listener]]\n", f"[[listener]]\n{PROXY}", 1))
    edge.start()


def test_curl_speaks_the_proxy_protocol(edge, origin, certificates):  # noqa: F811
    proxied(edge, origin)
    ca = certificates / "ca.pem"
    assert curl(edge.port, "--haproxy-protocol", ca=ca)
    assert curl(edge.port, ca=ca) == ""
    edge.stop()
    assert '"client":"127.0.0.1"' in (edge.directory / "access.log").read_text().replace(": ", ":")
    assert "there is no PROXY header" in edge.log()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(edge, origin, certificates, tmp_path, version):  # noqa: F811
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("haproxy is not installed")
    proxied(edge, origin)
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(f"""\
defaults
    mode tcp
    timeout connect 30s
    timeout client 30s
    timeout server 30s
listen front
    bind 127.0.0.1:{port}
    server edge 127.0.0.1:{edge.port} {version}
""")
    haproxy = Process([program, "-db", "-f", tmp_path / "haproxy.cfg"], tmp_path / "haproxy.log")
    try:
        # a client that is not the proxy
        wait_until(lambda: curl(port, "--interface", "127.0.0.9", ca=certificates / "ca.pem"), 30, "haproxy serves")
    finally:
        haproxy.stop()
    edge.stop()
    assert '"client":"127.0.0.9"' in (edge.directory / "access.log").read_text().replace(": ", ":")
