"""What tests of reloads share: a server whose configuration is changed while it runs, and connections that stay."""

import base64
import contextlib
import hashlib
import re

from tests.e2e.client import Client
from tests.e2e.scripted import Backend, Connection, Request
from tests.h2_peer import H2Peer

SECONDS = 30

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def renew(edge, seconds: float = SECONDS) -> str:
    """Has the server take its tables over -> what it says of that."""
    return _reloaded(edge, r"^generation \d+ serves", seconds)


def refused(edge, seconds: float = SECONDS) -> str:
    """The same, for tables that it cannot take over."""
    return _reloaded(edge, "^reload refused, nothing has changed", seconds)


def _reloaded(edge, pattern: str, seconds: float) -> str:
    mark = edge.mark()
    edge.write()
    edge.reload()
    return edge.wait_error(f"{pattern}|^reload refused|^generation \\d+ serves", mark, seconds=seconds)


def generation(said: str) -> int:
    return int(re.match(r"generation (\d+) serves", said)[1])


def echo(connection: Connection, request: Request) -> bool:
    """A backend's WebSocket that sends back the bytes it gets."""
    accept = base64.b64encode(hashlib.sha1(request.get("Sec-WebSocket-Key").encode() + _GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    connection.send(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    connection.sock.settimeout(None)
    while data := connection.sock.recv(65536):
        connection.send(data)
    return False


def backend_of(backend: Backend) -> Backend:
    backend.on("/ws", echo)
    return backend


class WebSocket(Client):
    """An open one; `ping` sees that bytes still go there and back."""

    def __init__(self, edge, path: str = "/ws") -> None:
        super().__init__(edge, seconds=SECONDS)
        head = f"GET {path} HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".encode()
        self.send(head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + _KEY + b"\r\n\r\n")
        assert self.head().status == 101
        self.pings = 0

    def ping(self) -> None:
        self.pings += 1
        self.exchange(b"ping %08d" % self.pings)

    def exchange(self, data: bytes) -> None:
        self.send(data)
        got = self.received
        self.received = b""
        while len(got) < len(data):
            more = self.sock.recv(65536)
            assert more, "the socket was closed"
            got += more
        assert got == data


@contextlib.contextmanager
def http2(edge):
    context = edge.tls_context()
    context.set_alpn_protocols(["h2"])
    with Client(edge, context=context, seconds=SECONDS) as client:
        yield H2Peer(client.send, lambda: client.sock.recv(65536))
