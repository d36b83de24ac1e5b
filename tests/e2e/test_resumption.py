"""Resumption and early data with other people's clients, against servers that refuse, accept, and end in between."""

import re
import socket
import time

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import ACCEPTED, Engine

from tests.e2e.processes import peer, run
from tests.e2e.server import Edge

GET = "GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"
EARLY = {"early_data": {"window": "10s"}}


@pytest.fixture(scope="module")
def s_client(pki):
    program = peer("openssl")

    def call(edge: Edge, *options: object, send: str = GET, name: str = "edge.test"):
        command = [program, "s_client", "-connect", f"127.0.0.1:{edge.port}", "-ign_eof", "-CAfile", pki.ca.file]
        command += ["-servername", name, "-verify_return_error", "-tls1_3"]
        return run([*command, *options], input=send, seconds=20)

    return call


@pytest.fixture(scope="module")
def early_edge(tmp_path_factory, pki, nginx):
    with Edge(
        tmp_path_factory.mktemp("early"), pki, {"nginx": [nginx.server]}, tls=EARLY, server={"workers": 2}
    ) as edge:
        yield edge


def answered(process) -> str:
    assert process.returncode == 0, process.stdout
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    return process.stdout


def resumed(process) -> bool:
    said = answered(process)
    assert ("Reused, TLSv1.3" in said) != ("New, TLSv1.3" in said)
    return "Reused, TLSv1.3" in said


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_openssl_resumes(s_client, edge, tmp_path, suite):
    """With two workers: whichever the connection comes to."""
    session = tmp_path / "session"
    assert not resumed(s_client(edge, "-sess_out", session, "-ciphersuites", suite))
    for _ in range(6):
        assert resumed(s_client(edge, "-sess_in", session, "-sess_out", session, "-ciphersuites", suite))
    edge.wait_request(count=6, resumed=True, cipher=suite)


def test_openssl_resumes_after_a_retry(s_client, edge, tmp_path):
    session = tmp_path / "session"
    groups = ("-groups", "X448:P-256")
    assert not resumed(s_client(edge, "-sess_out", session, *groups))
    assert resumed(s_client(edge, "-sess_in", session, *groups))


def test_another_name_or_hash_is_a_full_handshake(s_client, edge, tmp_path):
    session = tmp_path / "session"
    suites = ("-ciphersuites", "TLS_AES_256_GCM_SHA384")
    s_client(edge, "-sess_out", session, *suites)
    assert not resumed(s_client(edge, "-sess_in", session, *suites, name="rsa.edge.test"))
    assert not resumed(s_client(edge, "-sess_in", session, "-ciphersuites", "TLS_AES_128_GCM_SHA256"))
    assert resumed(s_client(edge, "-sess_in", session, *suites))


def test_two_tickets_then_one(s_client, edge, tmp_path):
    said = s_client(edge, "-sess_out", tmp_path / "s", "-msg").stdout
    assert len(re.findall("<<<.*NewSessionTicket", said)) == 2
    said = s_client(edge, "-sess_in", tmp_path / "s", "-msg").stdout
    assert len(re.findall("<<<.*NewSessionTicket", said)) == 1


def test_tickets_outlive_a_reload(s_client, make_edge, nginx, tmp_path):
    edge = make_edge({"nginx": [nginx.server]}, server={"workers": 2})
    session = tmp_path / "session"
    s_client(edge, "-sess_out", session)
    edge.reload()
    edge.wait_error("generation 2 serves")
    assert resumed(s_client(edge, "-sess_in", session))


def test_tickets_can_be_switched_off(s_client, make_edge, nginx, tmp_path):
    edge = make_edge({"nginx": [nginx.server]}, tls={"tickets": {"enabled": False}})
    said = answered(s_client(edge, "-msg"))
    assert "NewSessionTicket" not in said


def test_hosts_with_one_secret_open_each_others_tickets(s_client, make_edge, nginx, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(48)))
    one, other = (
        make_edge({"nginx": [nginx.server]}, tls={"tickets": {"secret_file": secret}, **EARLY}) for _ in range(2)
    )
    session = tmp_path / "session"
    s_client(one, "-sess_out", session)
    request = tmp_path / "request"
    request.write_text(GET)
    said = answered(s_client(other, "-sess_in", session, "-early_data", request))
    assert "Reused, TLSv1.3" in said
    assert "Early data was rejected" in said, "its register knows nothing of what the other took"


# Early data.


@pytest.fixture
def request_file(tmp_path):
    file = tmp_path / "request"
    file.write_text(GET)
    return file


def test_openssl_early_data_is_taken_once(s_client, early_edge, tmp_path, request_file):
    session = tmp_path / "session"
    s_client(early_edge, "-sess_out", session)
    said = answered(s_client(early_edge, "-sess_in", session, "-early_data", request_file, send=""))
    assert "Early data was accepted" in said
    early_edge.wait_request(resumed=True, early_data=True)
    for _ in range(4):  # whichever worker it comes to: each time another ClientHello, with another binder
        said = answered(s_client(early_edge, "-sess_in", session, "-early_data", request_file, send=""))
        assert "Early data was accepted" in said


def test_early_data_is_rejected_by_default(s_client, edge, tmp_path, early_edge, request_file):
    session = tmp_path / "session"
    s_client(edge, "-sess_out", session)
    said = s_client(edge, "-sess_in", session, "-early_data", request_file).stdout
    assert "Early data was not sent" in said and "Max Early Data: 0" in said
    # A ticket of another server, that allows it: refused, and the request is sent again.
    s_client(early_edge, "-sess_out", session)
    said = answered(s_client(edge, "-sess_in", session, "-early_data", request_file))
    assert "Early data was rejected" in said and "New, TLSv1.3" in said


def test_early_data_is_rejected_with_a_retry(s_client, make_edge, nginx, tmp_path, request_file):
    edge = make_edge({"nginx": [nginx.server]}, tls={"groups": ["secp256r1"], **EARLY})
    session = tmp_path / "session"
    groups = ("-groups", "X25519:P-256")
    s_client(edge, "-sess_out", session, *groups)
    said = answered(s_client(edge, "-sess_in", session, "-early_data", request_file, *groups))
    assert "Early data was rejected" in said and "Reused, TLSv1.3" in said


# Other clients.


def test_gnutls_resumes(edge, pki):
    program = peer("gnutls-cli")
    command = [program, "--port", edge.port, "--sni-hostname", "edge.test", "--x509cafile", pki.ca.file, "--resume"]
    command += ["--verify-hostname", "edge.test", "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "127.0.0.1"]
    known = len(edge.requests(resumed=True))
    # It closes its first connection and opens another one, on which the request goes out.
    said = run(command, input=GET, seconds=20).stdout
    assert "This is a resumed session" in said, said
    assert "HTTP/1.1 200 OK" in said
    edge.wait_request(count=known + 1, resumed=True)


def test_python_resumes(edge):
    context = edge.tls_context()
    session = None
    for turn in range(4):
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as raw:
            sock = context.wrap_socket(raw, server_hostname="edge.test", session=session)
            assert sock.session_reused == (turn > 0)
            sock.sendall(GET.encode())
            assert sock.recv(17).startswith(b"HTTP/1.1 200 OK")
            session = sock.session


def test_nss_early_data(early_edge, pki, tmp_path):
    """tstclnt connects twice; the second time its request goes out early."""
    program = peer("tstclnt", "/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
    database = f"sql:{tmp_path}"
    for command in (["-N", "--empty-password"], ["-A", "-n", "ca", "-t", "C,,", "-i", pki.ca.file]):
        assert run([peer("certutil"), "-d", database, *command]).returncode == 0
    request = tmp_path / "request"
    request.write_text(GET)
    known = len(early_edge.requests(early_data=True))
    command = [program, "-h", "127.0.0.1", "-p", early_edge.port, "-a", "edge.test", "-d", database]
    with open(request) as stdin:
        said = run([*command, "-V", "tls1.3:tls1.3", "-Z", "-L", "2", "-A", request], stdin=stdin, seconds=20)
    assert "HTTP/1.1 200 OK" in said.stdout, said.stdout
    early_edge.wait_request(count=known + 1, resumed=True, early_data=True)


def test_curl_resumes(edge, pki):
    """Three transfers of one curl, each on a connection of its own."""
    command = [peer("curl"), "-sv", "--cacert", pki.ca.file, "--resolve", f"edge.test:{edge.port}:127.0.0.1"]
    command += ["--http1.1", "-H", "Connection: close"]
    known = len(edge.requests(resumed=True, path="/1k"))
    said = run([*command, *[f"https://edge.test:{edge.port}/1k"] * 3], seconds=20)
    assert said.returncode == 0, said.stdout
    edge.wait_request(count=known + 2, resumed=True, path="/1k")


# With our own client, which can hold its Finished back.


def test_a_request_in_early_data_waits_for_the_handshake(make_edge, backend):
    """And a replay of the very same bytes brings nothing to the upstream."""
    backend.on("/early", backend.handlers["/ok"])
    edge = make_edge({"b": [backend.server]}, tls=EARLY)

    def connect(session=None, early=b""):
        engine = Engine(ClientConfig(server_name="edge.test", alpn=[b"http/1.1"], early_data=True), session)
        if early:
            engine.send(early)
        sock = socket.create_connection(("127.0.0.1", edge.port), timeout=10)
        hello = engine.take_output()
        sock.sendall(hello)
        return engine, sock, hello

    engine, sock, _ = connect()
    while not engine.established:
        engine.receive_bytes(sock.recv(65536))
    session = engine.session
    sock.close()
    request = b"GET /early HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"
    engine, sock, hello = connect(session, request)
    engine.receive_bytes(sock.recv(65536))
    assert engine.early_data_state == ACCEPTED
    time.sleep(0.3)
    assert backend.seen("/early") == [], "nothing shows yet that this is no replay"
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as replayed:
        replayed.sendall(hello)
        assert replayed.recv(65536)
        time.sleep(0.2)
    sock.sendall(engine.take_output())
    read = b""
    while b"HTTP/1.1 200" not in read:
        read += b"".join(payload for _, payload in engine.receive_bytes(sock.recv(65536)))
    sock.close()
    assert len(backend.seen("/early")) == 1
