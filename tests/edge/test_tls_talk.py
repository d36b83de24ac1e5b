"""The three servers of tls-tris's interoperation test: one rejects early data, one accepts it, one confirms it; with
OpenSSL's, GnuTLS's and NSS's clients, and what each is told in the answer."""

import os
import socket
import threading

import pytest

from edge import tls
from tests.e2e.processes import peer, run
from tests.edge.tls_peers import Thread, authority, certificate

EARLY_DATA = 42  # the extension's number
REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class SharedTickets:
    """Of the two configurations of the rejecting server."""

    def __init__(self):
        self.kept = {}

    def wrap(self, state, content):
        ticket = os.urandom(32)
        self.kept[ticket] = content
        return ticket

    def unwrap(self, hello, ticket):
        return self.kept.get(ticket)

    def clone(self):
        return self


def rejecting():
    """Its tickets allow early data, which it takes from nobody."""
    allowing = tls.Config(
        certificates=[certificate("localhost")],
        session_ticket_wrapper=SharedTickets(),
        accept_early_data=True,
        get_config_for_client=lambda hello: refusing if EARLY_DATA in hello.extensions else None,
    )
    refusing = allowing.clone(accept_early_data=False, get_config_for_client=None)
    return allowing


def accepting():
    return tls.Config(certificates=[certificate("localhost")], accept_early_data=True)


class Server:
    """Answers each connection's first request with what it knows of it."""

    def __init__(self, config, confirm):
        self.config, self.confirm = config, confirm
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answers = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            Thread(self.serve, accepted)

    def serve(self, accepted):
        accepted.settimeout(10)
        with tls.server(accepted, self.config) as conn:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                data = conn.read()
                if not data:
                    return
                request += data
            if self.confirm:
                conn.confirm_handshake()
            body = self.greeting(conn.connection_state())
            self.answers.append(body)
            conn.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            conn.close_write()
            while conn.read():
                pass

    def greeting(self, state):
        words = ["Hello", state.version.replace("TLSv", "TLS ")]
        if state.resumed:
            words.append("[resumed]")
        if state.early_data_used:
            words.append("[0-RTT confirmed]" if self.confirm and state.handshake_confirmed else "[0-RTT]")
        return " ".join([*words, "_o/"])

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


KINDS = {
    "rejecting": (rejecting, False, "Hello TLS 1.3 [resumed] _o/"),
    "accepting": (accepting, False, "Hello TLS 1.3 [resumed] [0-RTT] _o/"),
    "confirming": (accepting, True, "Hello TLS 1.3 [resumed] [0-RTT confirmed] _o/"),
}


@pytest.fixture(params=KINDS)
def talk(request):
    """(server, what it answers at last)."""
    make, confirm, expected = KINDS[request.param]
    server = Server(make(), confirm)
    yield server, expected
    server.close()


@pytest.fixture
def files(tmp_path):
    """A directory with ca.pem and the request."""
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "request").write_text(REQUEST)
    return tmp_path


def test_openssl(talk, files):
    server, expected = talk
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", "-ign_eof", "-tls1_3"]
    command += ["-servername", "localhost", "-CAfile", files / "ca.pem", "-verify_return_error"]
    session = files / "session"
    assert "Hello TLS 1.3 _o/" in run([*command, "-sess_out", session], input=REQUEST, seconds=20).stdout
    rejected = "0-RTT" not in expected
    said = run(
        [*command, "-sess_in", session, "-early_data", files / "request"],
        input=REQUEST if rejected else "",
        seconds=20,
    ).stdout
    assert expected in said
    assert f"Early data was {'rejected' if rejected else 'accepted'}" in said


def test_gnutls(talk, files):
    server, expected = talk
    program = peer("gnutls-cli")
    if "gnutls-cli 3.8." in run([program, "--version"], seconds=20).stdout:
        pytest.skip("gnutls-cli 3.8 refuses to send early data, to gnutls-serv too")
    command = [program, "--port", server.port, "--sni-hostname", "localhost", "--x509cafile"]
    command += [files / "ca.pem", "--verify-hostname", "localhost", "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3"]
    command += ["--resume", "--waitresumption", "--earlydata", files / "request", "127.0.0.1"]
    rejected = "0-RTT" not in expected
    said = run(command, input=REQUEST if rejected else "", seconds=20).stdout
    assert expected in said, said


def test_nss(talk, files):
    server, expected = talk
    program = peer("tstclnt", "/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
    database = f"sql:{files}"
    for command in (["-N", "--empty-password"], ["-A", "-n", "ca", "-t", "C,,", "-i", files / "ca.pem"]):
        assert run([peer("certutil"), "-d", database, *command]).returncode == 0
    command = [program, "-h", "127.0.0.1", "-p", server.port, "-a", "localhost", "-d", database]
    command += ["-V", "tls1.3:tls1.3", "-Z", "-L", "2", "-A", files / "request"]
    with open(files / "request") as stdin:
        said = run(command, stdin=stdin, seconds=20).stdout
    assert "Hello TLS 1.3 _o/" in said, said
    assert server.answers[-1] == expected, said
