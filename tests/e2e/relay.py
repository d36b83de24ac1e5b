"""A TCP relay between a client and an edge that holds back what the server says.

A client that hears nothing cannot send its Finished: what comes to the backend until then came as early data.
"""

import contextlib
import socket
import threading
import time

from tests.e2e.processes import wait_until

SECONDS = 30


class Relay:
    """The first `direct` connections are left alone; the server's bytes of all others wait for `release`, or, the first
    ones of each, for `pause` seconds."""

    def __init__(self, port: int, direct: int = 0, pause: float = SECONDS) -> None:
        self._to = port
        self._direct = direct
        self._pause = pause
        self._released = threading.Event()
        self._open: list[socket.socket] = []
        self.sent: list[int] = []
        """Bytes from the client to the server, by connection."""
        self.taken: list[bytes] = []
        """The same, themselves."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.close()

    def release(self) -> None:
        self._released.set()

    @property
    def holding(self) -> bool:
        """Whether a connection is held up now."""
        return len(self.sent) > self._direct and not self._released.is_set()

    def quiet(self) -> None:
        """Waits until a connection is held, and its client has nothing more to say without an answer."""
        wait_until(lambda: self.holding and self.sent[self._direct], SECONDS, "a connection that is held")
        last, since = 0, time.monotonic()
        while time.monotonic() - since < 0.15:
            if self.sent[self._direct] != last:
                last, since = self.sent[self._direct], time.monotonic()
            time.sleep(0.01)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to), SECONDS)
                self._open += [client, server]
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                number = len(self.sent)
                self.sent.append(0)
                self.taken.append(b"")
                threading.Thread(target=self._up, args=(client, server, number), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server, number), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
                if len(self.taken[number]) < 1 << 16:
                    self.taken[number] += data
                self.sent[number] += len(data)
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            waits = number >= self._direct
            while data := server.recv(65536):
                if waits:
                    self._released.wait(self._pause)
                waits = False
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
