"""Conn in a socket's place: makefile, socketserver, http.client, and the guide's examples."""

import http.client
import io
import re
import socket
import socketserver
import threading
from pathlib import Path

import pytest

from edge import tls
from tests.edge.tls_peers import Thread, authority, client_config, connected, issue, pair, server_config

GUIDE = Path(__file__).resolve().parents[2] / "docs/tls.md"


def test_the_sockets_names():
    with connected() as (client, server):
        client.sendall(b"one")
        assert client.send(b"two") == 3
        got = b""
        while len(got) < 6:
            got += server.recv(100)
        assert got == b"onetwo"
        server.sendall(b"abcdef")
        buffer = bytearray(4)
        assert client.recv_into(buffer, 2) == 2
        assert client.recv_into(buffer) == 4
        assert buffer == b"cdef"
        assert client.fileno() == client._sock.fileno()
        assert client.getsockname() == client.getpeername() == ""
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for call in (client.recv, client.send):
            with pytest.raises(ValueError, match="flags"):
                call(b"x" if call == client.send else 1, socket.MSG_PEEK)


def test_files():
    with connected() as (client, server):
        with client.makefile("w", encoding="utf-8") as text:
            text.write("grüße\nnext\n")
        with server.makefile("r", encoding="utf-8") as lines:
            assert [lines.readline(), lines.readline()] == ["grüße\n", "next\n"]
        with server.makefile("rwb") as both:
            both.write(b"line\n")
            both.flush()
            with client.makefile("rb", 0) as raw:
                assert isinstance(raw, io.RawIOBase)
                assert raw.read(100) == b"line\n"
                assert raw.fileno() == client.fileno()
        for mode, buffering in (("x", None), ("", None), ("r", 0)):
            with pytest.raises(ValueError, match="makefile"):
                client.makefile(mode, buffering)


def test_a_file_keeps_the_connection():
    with connected() as (client, server):
        file = client.makefile("rb")
        client.close()
        server.write(b"after close")
        server.close_write()
        assert file.read() == b"after close"
        file.close()
        file.close()
        assert client._sock.fileno() == -1
        with pytest.raises(tls.ClosedError):
            client.makefile()


def test_abort_does_not_wait_for_files():
    with connected() as (client, _):
        file = client.makefile("rb")
        client.abort()
        assert client._sock.fileno() == -1
        with pytest.raises(tls.ClosedError):
            file.read()
        file.close()


def test_shutdown():
    with connected() as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert server.read() == b""
        server.write(b"x")
        assert client.read() == b"x"
        reader = Thread(client.read)
        client.shutdown(socket.SHUT_RD)
        with pytest.raises(tls.UnexpectedEOF):
            reader.finish()


def test_shutdown_before_the_handshake_does_not_wait_for_it():
    with pair() as (client, server):
        client.shutdown(socket.SHUT_RDWR)
        with pytest.raises((tls.TlsError, OSError)):
            server.handshake()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    errors = 0

    def get_request(self):
        accepted, address = super().get_request()
        return tls.server(accepted, server_config()), address

    def handle_error(self, request, client_address):
        type(self).errors += 1


@pytest.fixture
def serve():
    """Starts a server with a handler; its port."""
    servers = []

    def start(handler):
        server = Server(("127.0.0.1", 0), handler)
        servers.append((server, threading.Thread(target=server.serve_forever)))
        servers[-1][1].start()
        return server.server_address[1]

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


class Client(http.client.HTTPConnection):
    def connect(self):
        super().connect()
        self.sock = tls.client(self.sock, client_config(), server_name=self.host)


def test_a_stream_handler(serve):
    class Lines(socketserver.StreamRequestHandler):
        timeout = 10
        disable_nagle_algorithm = True

        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    port = serve(Lines)
    with tls.client(socket.create_connection(("127.0.0.1", port)), client_config(), server_name="127.0.0.1") as conn:
        with conn.makefile("rwb") as file:
            for line in (b"one\n", b"two\n"):
                file.write(line)
                file.flush()
                assert file.readline() == line.upper()
        conn.close_write()
        assert conn.read() == b"", "the server's close_notify"


@pytest.mark.parametrize("how", ["length", "chunked", "close"])
def test_http_client(serve, how):
    body = bytes(range(256)) * 5000

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            got = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            if how == "length":
                self.send_header("Content-Length", str(len(got)))
            elif how == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            if how == "chunked":
                self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(got), got))
            else:
                self.wfile.write(got)

        def log_message(self, *args):
            pass

    client = Client("localhost", serve(Handler), timeout=10)
    for _ in range(2):
        client.request("POST", "/", body)
        response = client.getresponse()  # with "close", http.client closes its socket here, and reads on by its file
        assert response.read() == body
    client.close()


def test_a_client_that_is_not_tls_ends_one_request_alone(serve):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()

    port = serve(Handler)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(10)
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(100)[:1] == b"\x15"
    with tls.client(socket.create_connection(("127.0.0.1", port)), client_config(), server_name="localhost") as conn:
        conn.write(b"\n")
        assert conn.read() == b""
    assert Server.errors == 1


def test_the_guides_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leaf = issue("localhost", "127.0.0.1")
    Path("localhost.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path("localhost.key")
    authority().cert_pem.write_to_path("ca.pem")
    text = GUIDE.read_text()
    examples = [(m.start(), m.group(1)) for m in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(examples) >= 6
    names = {}
    for at, example in examples:
        padding = "\n" * (text.count("\n", 0, at) + 1)  # so that a failure names the guide's line
        exec(compile(padding + example, str(GUIDE), "exec"), names)


def test_the_guide_names_what_there_is():
    text = GUIDE.read_text()
    names = {"recv", "alert", "reason", "server_name", *vars(tls), *dir(tls.Conn), *vars(tls.SessionTicketWrapper)}
    names |= {*vars(tls.ReplayRegister), "identity", "cryptography"}
    names |= {*tls.Config.__dataclass_fields__, *tls.Certificate.__dataclass_fields__}
    assert {*re.findall(r"`(\w+)`", text)} <= names
