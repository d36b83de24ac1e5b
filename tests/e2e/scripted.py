"""A backend of raw bytes: for each path a function decides what is sent, when, and whether the connection goes on.

A handler gets the `Backend`'s connection and the request. It answers through `connection.send`, and returns True when
the connection may carry another request; otherwise it is closed. Every request, and every connection, is noted.
"""

import contextlib
import dataclasses
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 20

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclasses.dataclass
class Request:
    head: bytes
    connection: int
    """The number of its connection, from 0."""
    body: bytes = b""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def all(self, name: str) -> list[str]:
        found = re.findall(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)[ \t]*\r$", self.head)
        return [value.decode("latin-1") for value in found]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else None

    def names(self) -> list[str]:
        return [line.split(b":")[0].decode().lower() for line in self.head.split(b"\r\n")[1:] if line]


class Connection:
    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.received = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.received += data
        return bool(data)

    def head(self) -> bytes | None:
        """The next request's head; None when the connection ends before it."""
        while b"\r\n\r\n" not in self.received:
            if not self.more():
                return None
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def exactly(self, n: int) -> bytes:
        while len(self.received) < n:
            if not self.more():
                raise ConnectionError("ended in a body")
        data, self.received = self.received[:n], self.received[n:]
        return data

    def line(self) -> bytes:
        while b"\r\n" not in self.received:
            if not self.more():
                raise ConnectionError("ended in a line")
        line, _, self.received = self.received.partition(b"\r\n")
        return line

    def body(self, request: Request) -> bytes:
        """The request's body, read; for a chunked one with `request.trailers` set to the raw trailer lines."""
        if request.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.line(), 16):
                parts.append(self.exactly(size))
                assert self.exactly(2) == b"\r\n"
            request.trailers = []
            while line := self.line():
                request.trailers.append(line)
            request.body = b"".join(parts)
        elif length := request.get("content-length"):
            request.body = self.exactly(int(length))
        return request.body

    def reset(self) -> None:
        """Ends with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_closed(self, seconds: float = SECONDS) -> bool:
        """Whether the other side closes in time."""
        self.sock.settimeout(seconds)
        try:
            while self.more():
                self.received = b""
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


Handler = Callable[[Connection, Request], object]


class Backend:
    """Listens on 127.0.0.1 (or a Unix socket), a thread for each connection.

    `server` is how a configuration names it.
    """

    def __init__(self, path: Path | None = None, receive_buffer: int = 0, port: int = 0) -> None:
        self.handlers: dict[str, Handler] = {}
        self.requests: list[Request] = []
        self.accepted = 0
        self.faults: list[BaseException] = []
        self.open: set[Connection] = set()
        self._changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(str(path) if path else ("127.0.0.1", port))
        self._listener.listen(512)
        self.server = f"unix:{path}" if path else f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.on("/ok", _ok)
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, path: str, handler: Handler) -> None:
        """What answers this path (without query). A trailing "*" stands for any rest."""
        self.handlers[path] = handler

    def seen(self, path: str) -> list[Request]:
        return [r for r in list(self.requests) if r.target.partition("?")[0] == path]

    def wait_seen(self, path: str, count: int = 1, seconds: float = SECONDS) -> list[Request]:
        end = time.monotonic() + seconds
        with self._changed:
            while len(self.seen(path)) < count:
                left = end - time.monotonic()
                assert left > 0, f"{len(self.seen(path))} of {count} requests for {path}"
                self._changed.wait(left)
        return self.seen(path)

    def close(self) -> None:
        self.stop_listening()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def stop_listening(self) -> None:
        """Further connections are refused; those that are there stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def listen_on(self, port: int) -> None:
        """Listens anew, on a port of 127.0.0.1."""
        self.stop_listening()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(512)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(SECONDS)
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self.accepted)
            self.accepted += 1
            self.open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            while self._one(connection):
                pass
        except OSError:
            pass  # the edge has closed or reset it: its right
        except Exception as e:
            self.faults.append(e)
        finally:
            self.open.discard(connection)
            connection.sock.close()

    def _one(self, connection: Connection) -> object:
        head = connection.head()
        if head is None:
            return False
        request = Request(head, connection.number)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        return self._handler(request.target.partition("?")[0])(connection, request)

    def _handler(self, path: str) -> Handler:
        if path in self.handlers:
            return self.handlers[path]
        for pattern, handler in self.handlers.items():
            if pattern.endswith("*") and path.startswith(pattern[:-1]):
                return handler
        return _unknown


def _ok(connection: Connection, request: Request) -> bool:
    connection.body(request)
    connection.send(OK)
    return True


def _unknown(connection: Connection, request: Request) -> None:
    connection.body(request)
    connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\nConnection: close\r\n\r\nunknown")
