"""A client of raw bytes over Python's ssl: what is sent is exactly what a test wrote, what comes back is parsed here.

A connection that ends without close_notify raises ssl.SSLEOFError: an end in good order and a cut differ.
"""

import contextlib
import dataclasses
import select
import socket
import ssl

SECONDS = 10


@dataclasses.dataclass
class Response:
    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def get(self, name: str, default: str | None = None) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


class Client:
    """A TLS connection to an edge.

    `context` and `name` (SNI, None for none) default to a client that verifies the test CA.
    """

    def __init__(
        self,
        edge,
        *,
        name: str | None = "edge.test",
        context: ssl.SSLContext | None = None,
        seconds: float = SECONDS,
        receive_buffer: int = 0,
    ) -> None:
        self.received = b""
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.raw.settimeout(seconds)
            if receive_buffer:
                self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.raw.connect(("127.0.0.1", edge.port))
            self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.port = self.raw.getsockname()[1]
            context = context or edge.tls_context()
            self.sock = context.wrap_socket(self.raw, server_hostname=name, suppress_ragged_eofs=False)
        except BaseException:
            self.raw.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> "Client":
        self.sock.sendall(data)
        return self

    def pump(self, data: bytes) -> "Client":
        """Sends like `send`, while taking what comes: neither side waits for the other to read.

        One thread for both, as an SSL object must not be used by two at a time.
        """
        view, at = memoryview(data), 0
        seconds = self.sock.gettimeout()
        self.sock.setblocking(False)
        try:
            while at < len(view):
                moved = False
                with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    at += self.sock.send(view[at : at + 16384])
                    moved = True
                with contextlib.suppress(ssl.SSLWantReadError):
                    moved = self.more() or moved
                if not moved:
                    select.select([self.sock], [self.sock], [], seconds)
        finally:
            self.sock.settimeout(seconds)
        return self

    def request(self, method: str, path: str, *fields: str, body: bytes = b"", host: str = "edge.test") -> "Response":
        """A request as it should be, and its response."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
        if body and not any(f.lower().startswith("transfer-encoding") for f in fields):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.response(method)

    def get(self, path: str, *fields: str, **options) -> "Response":
        return self.request("GET", path, *fields, **options)

    # Reading.

    def more(self) -> bool:
        """One read; False at an end in good order."""
        data = self.sock.recv(65536)
        self.received += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """All up to and including the mark."""
        while mark not in self.received:
            assert self.more(), f"closed before {mark!r}: {self.received[:200]!r}"
        end = self.received.index(mark) + len(mark)
        found, self.received = self.received[:end], self.received[end:]
        return found

    def exactly(self, n: int) -> bytes:
        parts, have = [self.received], len(self.received)
        while have < n:
            data = self.sock.recv(min(n - have, 1 << 20))
            assert data, f"closed after {have} of {n} bytes"
            parts.append(data)
            have += len(data)
        everything = b"".join(parts)
        self.received = everything[n:]
        return everything[:n]

    def head(self) -> Response:
        """A response's head, interim or final."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, *reason = lines[0].split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), lines[0]
        return Response(version, int(status), "".join(reason), _fields(lines[1:]))

    def response(self, method: str = "GET") -> Response:
        """The next final response, whole."""
        while True:
            r = self.head()
            if r.status >= 200:
                break
        if method == "HEAD" or r.status in (204, 304):
            return r
        if r.get("transfer-encoding", "").lower() == "chunked":
            self._chunks(r)
        elif r.get("content-length") is not None:
            r.body = self.exactly(int(r.get("content-length")))
        else:
            r.body = self.rest()
        return r

    def _chunks(self, r: Response) -> None:
        body = []
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            body.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        r.body = b"".join(body)
        lines = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            lines.append(line.decode("latin-1").rstrip("\r\n"))
        r.trailers = _fields(lines)

    def rest(self) -> bytes:
        """All that comes until close_notify."""
        while self.more():
            pass
        found, self.received = self.received, b""
        return found

    def closed(self) -> bool:
        """Whether the server now ends the connection in good order, and says no more before."""
        return self.rest() == b""


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines if line)
    return [(name, value.strip()) for name, _, value in pairs]
