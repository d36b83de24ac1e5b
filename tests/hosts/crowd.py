"""Clients that go on asking hosts while something is done to these, of every kind that a server has; what they saw.

`python -m tests.hosts.crowd AUTHORITY ADDRESS...`: in the hosts' network. Each line on its standard input is answered
by a line of JSON; at the end of it clients end in good order, and the last line comes.

What counts as failed: anything but the whole, expected answer, in `SECONDS`. A request on a kept connection of HTTP/1.1
that closed before it answered anything, or one that HTTP/2's GOAWAY left out, is asked once more on a new connection,
as every client does (RFC 9112, section 9.3.1; RFC 9113, section 6.8); those are counted as `again`.
"""

import asyncio
import collections
import contextlib
import json
import random
import socket
import ssl
import sys
import threading
import time

import websockets

from tests.h2_peer import ACK, PING, Frame, H2Peer, frame, request_fields

NAME = "edge.test"
SECONDS = 20.0
PATH = "/1k"
BODY = 1024
KINDS = {"handshakes": 2, "http/1.1": 3, "http/2": 2, "websocket": 2}
"""Clients of each kind for each host."""
FAILURES_TOLD = 20


class ClosedError(Exception):
    """A kept connection ended in good order before it had said anything of a response."""


class Crowd:
    def __init__(self, authority: str, addresses: list[str]) -> None:
        self.addresses = addresses
        self.over = asyncio.Event()
        self.served: collections.Counter[str] = collections.Counter()
        self.by_host: collections.Counter[str] = collections.Counter()
        self.again: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.longest = 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._contexts = {protocol: self._context(authority, protocol) for protocol in ("http/1.1", "h2")}

    @staticmethod
    def _context(authority: str, protocol: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols([protocol])
        return context

    def report(self) -> dict:
        return {
            "served": self.served,
            "by_host": self.by_host,
            "again": self.again,
            "failed": self.failed,
            "failures": self.failures,
            "longest": round(self.longest, 3),
            "seconds": round(time.monotonic() - self._began, 1),
        }

    async def run(self) -> None:
        lives = {"handshakes": self._shake, "http/1.1": self._keep, "http/2": self._multiplex, "websocket": self._talk}
        async with asyncio.TaskGroup() as group:
            for address in self.addresses:
                for kind, number in KINDS.items():
                    for _ in range(number):
                        group.create_task(self._live(kind, lives[kind], address))

    async def _live(self, kind: str, life, address: str) -> None:
        while not self.over.is_set():
            begin = time.monotonic()
            try:
                async with asyncio.timeout(SECONDS + 10):
                    await life(address)
            except (OSError, EOFError, TimeoutError, AssertionError, websockets.WebSocketException, ClosedError) as e:
                self._note_failure(kind, address, begin, e)
                await asyncio.sleep(0.05)
            await self._pause(0.02)

    def _note_failure(self, kind: str, address: str, begin: float, e: Exception) -> None:
        self.failed[kind] += 1
        if len(self.failures) < FAILURES_TOLD:
            at = begin - self._began
            told = f"{at:.2f} s: {kind} to {address}: {type(e).__name__}: {e} after {time.monotonic() - begin:.2f} s"
            self.failures.append(told)

    def _note_served(self, kind: str, address: str, begin: float) -> None:
        with self._lock:
            self.served[kind] += 1
            self.by_host[address] += 1
        self.longest = max(self.longest, time.monotonic() - begin)

    async def _pause(self, most: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), random.uniform(0, most))

    async def _connect(self, address: str, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(SECONDS):
            ends = await asyncio.open_connection(
                address, 443, ssl=self._contexts[protocol], server_hostname=NAME, ssl_handshake_timeout=SECONDS
            )
        assert ends[1].get_extra_info("ssl_object").selected_alpn_protocol() == protocol
        return ends

    # A connection for each request.

    async def _shake(self, address: str) -> None:
        begin = time.monotonic()
        reader, writer = await self._connect(address, "http/1.1")
        try:
            await _ask(reader, writer, close=True)
            self._note_served("handshakes", address, begin)
        finally:
            await _close(writer)

    # Connections that are kept.

    async def _keep(self, address: str) -> None:
        reader, writer = await self._connect(address, "http/1.1")
        try:
            kept, left = False, random.choice((1, 20, 200))
            while left and not self.over.is_set():
                begin = time.monotonic()
                try:
                    stays = await _ask(reader, writer)
                except ClosedError:
                    if not kept:
                        raise
                    self.again["http/1.1"] += 1
                    await _close(writer)
                    reader, writer = await self._connect(address, "http/1.1")
                    stays = await _ask(reader, writer)
                self._note_served("http/1.1", address, begin)
                if not stays:
                    return
                kept = True
                left -= 1
                await self._pause(0.02)
        finally:
            await _close(writer)

    # Streams of one connection.

    async def _multiplex(self, address: str) -> None:
        """Batches of streams, until the connection goes away or has had enough. GOAWAY's leavings go to the next."""
        left = 0
        while True:
            left = await asyncio.to_thread(self._session, address, left)
            self.again["http/2"] += left
            if not left:
                return

    def _session(self, address: str, first: int) -> int:
        """How many requests were left out, for another connection to ask."""
        with socket.create_connection((address, 443), SECONDS) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._contexts["h2"].wrap_socket(raw, server_hostname=NAME, suppress_ragged_eofs=False) as sock:
                assert sock.selected_alpn_protocol() == "h2"
                peer = Multiplexed(sock)
                for size in (first or 8, *[random.randint(1, 8) for _ in range(random.choice((0, 10, 50)))]):
                    begin = time.monotonic()
                    answered = peer.ask(size)
                    for _ in range(answered):
                        self._note_served("http/2", address, begin)
                    if answered < size:
                        return size - answered
                    if peer.goaways or self.over.is_set():
                        break
                    time.sleep(random.uniform(0, 0.05))
        return 0

    # WebSockets, each for about two seconds.

    async def _talk(self, address: str) -> None:
        begin = time.monotonic()
        async with websockets.connect(
            f"wss://{NAME}/ws", host=address, port=443, ssl=self._contexts["http/1.1"], proxy=None,
            open_timeout=SECONDS, ping_interval=None, close_timeout=SECONDS,
        ) as talk:  # fmt: skip
            for number in range(20):
                async with asyncio.timeout(SECONDS):
                    await talk.send(f"message {number}")
                    assert await talk.recv() == f"message {number}"
                await asyncio.sleep(0.1)
        self._note_served("websocket", address, begin + 2)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, close: bool = False) -> bool:
    """One request and its whole response; whether the connection stays."""
    connection = "close" if close else "keep-alive"
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {NAME}\r\nConnection: {connection}\r\n\r\n".encode())
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().split(b"\r\n")
            assert fields[0].startswith(b"http/1.1 200 "), head
            assert b"content-length: %d" % BODY in fields, head
            assert len(await reader.readexactly(BODY)) == BODY
    except asyncio.IncompleteReadError as e:
        if e.partial:
            raise
        raise ClosedError("closed without a response") from None
    except ConnectionError as e:
        raise ClosedError(f"{type(e).__name__} before a response") from None
    return b"connection: close" not in fields


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            await writer.wait_closed()


class Multiplexed(H2Peer):
    """A connection of HTTP/2 that heeds GOAWAY."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock.sendall, lambda: sock.recv(65536))

    def step(self) -> Frame:
        f = super().step()
        if f.type == PING and not f.flags & ACK:
            self.send(frame(PING, ACK, payload=f.payload))
        return f

    def ask(self, number: int) -> int:
        """So many requests at once; how many were answered. Fewer only when GOAWAY left the others out."""
        heads = [self.head(self.stream(), request_fields(PATH, authority=NAME)) for _ in range(number)]
        streams = list(self.responses)[-number:]
        with contextlib.suppress(ConnectionError):  # what was said before the end is there to be read
            self.send(*heads)
        while self._waits(streams):
            try:
                self.step()
            except EOFError:
                assert not self._waits(streams), f"closed with streams open; GOAWAY: {self.goaways}"
        answered = [self.responses.pop(stream) for stream in streams if self.responses[stream].ended]
        assert all(response.status == 200 and len(response.body) == BODY for response in answered), answered
        assert not any(code for _, code in self.goaways), self.goaways
        return len(answered)

    def _waits(self, streams: list[int]) -> bool:
        """Whether there is one that will be answered."""
        last = self.goaways[-1][0] if self.goaways else 1 << 31
        here = [self.responses[stream] for stream in streams if stream <= last]
        assert not any(response.reset is not None for response in here), here
        return not all(response.ended for response in here)


async def main() -> None:
    crowd = Crowd(sys.argv[1], sys.argv[2:])
    asking = asyncio.create_task(crowd.run())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        assert not asking.done() or asking.result()
        print(json.dumps(crowd.report()), flush=True)
    crowd.over.set()
    await asking
    print(json.dumps(crowd.report()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
