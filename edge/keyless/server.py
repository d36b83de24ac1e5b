"""A key server: signs by keys that never leave it, for clients that show a certificate.

    Keys         what signs, by Subject Key Identifier
    Server       listens and counts its connections
    Connection   one client's: each request is answered once it is signed, whatever was asked before it
"""

import asyncio
import concurrent.futures
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from cext.crypto.sign import PrivateKey
from cext.tls.engine import Engine

from edge.keyless import wire
from edge.keyless.client import subject_key_identifier
from edge.keyless.stream import TlsStream
from edge.seldom import Seldom

HANDSHAKE_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
"""A connection on which nothing was asked for this long is closed."""
REQUESTS_MOST: Final = 256
"""Of a connection, that are being signed; it is not read from before one of them is answered."""
UNSENT_MOST: Final = 1 << 18
"""Bytes of answers that a client may leave unread before no more is read from it."""

_QUICK: Final = ("ecdsa-p256", "ed25519")
"""Kinds of keys in memory that sign in less time than it takes to wake a thread."""

Report = Callable[[str, str], None]


class Key(Protocol):
    """A private key. Its signatures are made in threads."""

    kind: str

    def sign_digest(self, scheme: int, digest: bytes) -> bytes:
        """Of a digest, or for Ed25519 of a message, by a SignatureScheme. ValueError when the key cannot."""
        ...

    def public_spki(self) -> bytes: ...


def keys_by_identifier(keys: Sequence[Key]) -> dict[bytes, Key]:
    return {subject_key_identifier(key.public_spki()): key for key in keys}


class Server:
    """Signs by `keys`, which may be set to others at any time. Made and used in an event loop."""

    def __init__(
        self, keys: Mapping[bytes, Key], tls: object, *, threads: int, connections: int, report: Report
    ) -> None:
        """`keys` by Subject Key Identifier; `tls`: the engine's ServerConfig, which demands client certificates;
        `threads`: that sign; `connections`: at most, the next is closed at once."""
        self.keys = keys
        self.tls = tls
        self.signed = 0
        self.refused = 0
        """Requests that got an error."""
        self.open: set[Connection] = set()
        self.report = Seldom(report)
        self.loop = asyncio.get_running_loop()
        self.threads = concurrent.futures.ThreadPoolExecutor(threads, "sign")
        self._connections = connections
        self._listening: list[asyncio.Server] = []
        self._empty: asyncio.Future[None] | None = None

    async def listen(self, sock: socket.socket) -> None:
        """On a bound socket."""
        self._listening.append(await self.loop.create_server(lambda: Connection(self), sock=sock))

    def admits(self, connection: "Connection") -> bool:
        if len(self.open) >= self._connections or not self._listening:
            return False
        self.open.add(connection)
        return True

    def left(self, connection: "Connection") -> None:
        self.open.discard(connection)
        if not self.open and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Takes no more connections, answers what has been asked, and closes; after `seconds` whatever is left."""
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        if self.open:
            self._empty = self.loop.create_future()
            for connection in list(self.open):
                connection.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty, seconds)
        for connection in list(self.open):
            connection.cut("the key server ends")
        self.threads.shutdown(wait=False, cancel_futures=True)


class Connection(TlsStream):
    def __init__(self, server: Server) -> None:
        super().__init__(Engine(server.tls))
        self.peer = "?"
        self._server = server
        self._decoder = wire.Decoder()
        self._running = 0
        self._waiting: list[wire.Packet | wire.PacketError] = []
        self._paused = False
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at = self.loop.time()

    def connection_made(self, transport: Any) -> None:
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self._server.admits(self):
            self._server.report("warning", f"{self.peer}: refused, there are connections enough", "connections")
            transport.abort()
            return
        self._timer = self.loop.call_later(HANDSHAKE_SECONDS, self._look)
        super().connection_made(transport)

    def established(self) -> None:
        if self._draining:
            self.end("the key server ends")

    def data_came(self, data: bytes) -> None:
        self._asked_at = self.loop.time()
        self._waiting += self._decoder.feed(data)
        self._go_on()

    def _go_on(self) -> None:
        """Begins what there is room for; the client is not read from while some of it waits."""
        while self._waiting and self._running < REQUESTS_MOST and self.unsent < UNSENT_MOST:
            self._begin(self._waiting.pop(0))
        pause = bool(self._waiting)
        if self.transport is not None and pause is not self._paused:
            self._paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()
        if self._draining and not self._running and not self._waiting:
            self.end("the key server ends")

    def _begin(self, packet: wire.Packet | wire.PacketError) -> None:
        if isinstance(packet, wire.PacketError):
            self._refuse(packet.id or 0, packet.code, str(packet))
            if packet.code == wire.Code.VERSION:
                self.end("what it sends cannot be read")
            return
        if packet.opcode == wire.Opcode.PING:
            self.send(wire.build(packet.id, wire.Opcode.PONG, packet.value))
            return
        scheme = wire.SCHEMES.get(packet.opcode)
        if scheme is None:
            code = wire.Code.UNEXPECTED_OPCODE if packet.is_answer else wire.Code.BAD_OPCODE
            self._refuse(packet.id, code, f"the opcode 0x{packet.opcode:02x} is none that is permitted")
            return
        ski = packet.items.get(wire.Tag.SKI, b"")
        key = self._server.keys.get(ski)
        if key is None:
            name = packet.items.get(wire.Tag.SERVER_NAME, b"").decode("latin-1")
            self._refuse(packet.id, wire.Code.KEY_NOT_FOUND, f"no key {ski.hex() or 'named'} (for {name or 'no name'})")
            return
        if key.kind in _QUICK and isinstance(key, PrivateKey):
            self._answer(packet.id, *_attempt(key, scheme, packet.value))
            return
        self._running += 1
        signing = self.loop.run_in_executor(self._server.threads, _attempt, key, scheme, packet.value)
        signing.add_done_callback(lambda done: self._signed(packet.id, done))

    def _signed(self, packet_id: int, done: "asyncio.Future[tuple[bytes, Exception | None]]") -> None:
        self._running -= 1
        if done.cancelled():
            return
        self._answer(packet_id, *done.result())
        self._go_on()

    def _answer(self, packet_id: int, signature: bytes, error: Exception | None) -> None:
        if isinstance(error, ValueError):
            self._refuse(packet_id, wire.Code.CRYPTO, str(error))
        elif error is not None:
            self._refuse(packet_id, wire.Code.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self._server.signed += 1
            self.send(wire.build(packet_id, wire.Opcode.RESPONSE, signature))

    def _refuse(self, packet_id: int, code: wire.Code, why: str) -> None:
        self._server.refused += 1
        self._server.report("warning", f"{self.peer}: {why}", f"{self.peer.rpartition(':')[0]} {why}")
        self.send(wire.build(packet_id, wire.Opcode.ERROR, bytes((code,))))

    def drain(self) -> None:
        self._draining = True
        if self.engine.established:
            self._go_on()

    def ended(self, cause: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._server.left(self)
        if not self.engine.established:
            self._server.report("warning", f"{self.peer}: {cause}", f"{self.peer.rpartition(':')[0]} {cause}")

    def _look(self) -> None:
        """Ends what has not come to its handshake's end, asks for nothing, or takes no answers."""
        if not self.engine.established:
            self.cut(f"no handshake within {HANDSHAKE_SECONDS:g} s")
            return
        quiet = self.loop.time() - self._asked_at
        if quiet >= IDLE_SECONDS:
            if self._running or self.unsent:
                self._server.report("warning", f"{self.peer}: it takes no answers", "no answers")
                self.cut("it takes no answers")
            else:
                self.end("it is idle")
            return
        self._timer = self.loop.call_later(IDLE_SECONDS - quiet, self._look)


def _attempt(key: Key, scheme: int, digest: bytes) -> tuple[bytes, Exception | None]:
    try:
        return key.sign_digest(scheme, digest), None
    except Exception as error:
        return b"", error


def load_pem(pem: bytes) -> Key:
    """A key of a file. ValueError when it is of no use."""
    key: Key = PrivateKey.from_pem(pem)
    if key.kind in ("ecdsa-p521", "rsa-pss"):
        raise ValueError(f"a key of kind {key.kind}: use ECDSA P-256 or P-384, RSA or Ed25519")
    return key
