"""A client that takes its time, many at once in one thread: what it sends goes out in drops, what it reads it reads in
drops, over real TLS. Each notes when and how the server put an end to it.

`seal` gives ciphertext, so that records can be cut in the middle; `http2` is a peer of raw frames.
"""

import asyncio
import contextlib
import socket
import ssl
import time

from tests.h2_peer import H2Peer

EVERY = 0.05
"""Seconds between two drops: each is in time for itself."""
PATIENCE = 8.0
"""Seconds until a test stops waiting for an end."""


class Slow:
    """A connection; `over` tells how it ended: "notify" (in good order), "cut" (without close_notify) or "reset"."""

    def __init__(self, edge, protocol: str = "http/1.1", receive_buffer: int = 0) -> None:
        self.edge = edge
        self.context = edge.tls_context()
        self.context.set_alpn_protocols([protocol])
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname="edge.test")
        self.received = b""
        self.over = ""
        self.opening = False
        self.began = self.ended = 0.0
        self.http2: H2Peer | None = None

    async def connect(self, *, handshake: bool = True) -> "Slow":
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.sock, ("127.0.0.1", self.edge.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.sock.getsockname()[1]
        while handshake:
            try:
                self.tls.do_handshake()
                handshake = False
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self.sock, self.outgoing.read())
                self.incoming.write(await loop.sock_recv(self.sock, 65536))
        if self.outgoing.pending:
            await loop.sock_sendall(self.sock, self.outgoing.read())
        self.began = time.monotonic()
        return self

    def speak_http2(self, **settings) -> H2Peer:
        """A peer whose frames `flush` sends, and which has seen what has come. It answers nothing by itself: that would
        come between the drops of a frame."""
        self.http2 = H2Peer(self._frames_out, self._frames_in, hold=True, **settings)
        return self.http2

    def _frames_out(self, data: bytes) -> None:
        if not self.opening:
            self.tls.write(data)

    def _frames_in(self) -> bytes:
        if not self.received:
            raise BlockingIOError
        data, self.received = self.received, b""
        return data

    def client_hello(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """As ciphertext of one record."""
        self.tls.write(data)
        return self.outgoing.read()

    # What it sends. After the server's end nothing goes out any more, and nothing is said of it.

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    async def flush(self) -> None:
        await self.send_raw(self.outgoing.read())

    async def send_raw(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if not self.over:
                await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def dribble(self, pieces, every: float = EVERY) -> None:
        """Sends piece after piece of plaintext, until the server's end."""
        for piece in pieces:
            if self.over:
                return
            await self.send(piece)
            await asyncio.sleep(every)

    # What it reads.

    async def read_on(self, at_once: int = 65536, every: float = 0.0) -> None:
        """Reads to the server's end, `at_once` bytes of TCP every so often; `done` ends it earlier."""
        loop = asyncio.get_running_loop()
        while not self.over:
            try:
                data = await loop.sock_recv(self.sock, at_once)
            except OSError:
                return self._end("reset")
            if not data:
                return self._end("cut")
            self.incoming.write(data)
            self._open()
            if every:
                await asyncio.sleep(every)
        return None

    def _open(self) -> None:
        try:
            while data := self.tls.read(65536):
                self.received += data
            self._end("notify")
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end("notify")
        if self.http2 is not None:
            self.opening = True
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.http2.step()
            self.opening = False
            if any(r.reset is not None for r in self.http2.responses.values()):
                self._end("stream")

    def _end(self, how: str) -> None:
        if not self.over:
            self.over = how
            self.ended = time.monotonic()

    async def response(self) -> None:
        """Waits for a small response, and begins to count."""
        loop = asyncio.get_running_loop()

        def whole() -> bool:
            if self.http2 is not None:
                return any(r.ended for r in self.http2.responses.values())
            return self.received.endswith(b"ok")

        while not whole():
            self.incoming.write(await loop.sock_recv(self.sock, 65536))
            self._open()
        self.received = b""
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def status(self) -> int | None:
        """Of what answered the slow request."""
        if self.http2 is not None:
            last = self.http2.responses[max(self.http2.responses)] if self.http2.responses else None
            return last.status if last is not None and last.fields else None
        return int(self.received.split(b" ", 2)[1]) if self.received.startswith(b"HTTP/1.1 ") else None

    def close(self) -> None:
        self.sock.close()


async def against(client: Slow, act, **how) -> Slow:
    """Lets a client act, and waits for its end."""
    acting = asyncio.ensure_future(act(client))
    try:
        async with asyncio.timeout(PATIENCE):
            while not client.over and not acting.done():
                await asyncio.sleep(0.01)
            while not client.over:
                await asyncio.sleep(0.01)
    except TimeoutError:
        client.over = "never"
    acting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await acting
    client.close()
    return client
