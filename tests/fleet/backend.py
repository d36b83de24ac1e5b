"""A backend on a Unix socket, which hosts in any namespace reach: it counts what comes, by path."""

import collections
import contextlib
import selectors
import socket
import threading
from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Backend:
    def __init__(self, path: Path) -> None:
        self.server = f"unix:{path}"
        self.seen: collections.Counter[str] = collections.Counter()
        """How often each path was asked for."""
        self.early: collections.Counter[str] = collections.Counter()
        """The same of requests that may be replays."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(1024)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._buffers: dict[socket.socket, bytes] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._listener:
                    conn, _ = self._listener.accept()
                    self._buffers[conn] = b""
                    self._selector.register(conn, selectors.EVENT_READ)
                else:
                    self._read(key.fileobj)

    def _read(self, conn: socket.socket) -> None:
        try:
            data = conn.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(conn)
            self._buffers.pop(conn)
            conn.close()
            return
        *requests, rest = (self._buffers[conn] + data).split(b"\r\n\r\n")
        self._buffers[conn] = rest
        for head in requests:
            path = head.split(b" ", 2)[1].decode()
            self.seen[path] += 1
            if b"\r\nearly-data: 1" in head.lower():
                self.early[path] += 1
        with contextlib.suppress(OSError):  # who asked has gone
            conn.sendall(ANSWER * len(requests))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        for conn in [*self._buffers, self._listener]:
            conn.close()
        self._selector.close()
