"""The client of key servers: asks for signatures over a few connections that it keeps, and goes to another server when
one is late or fails.

    KeylessSigner    a certificate's key, as the engine knows it: sign(message, scheme)
    Client           what all signers with the same servers share, in one worker
    KeyServer        one address: its connections, and how fast it has been
    Connection       one connection: requests by their ids

A signature may be made twice without harm, so a call that is late is asked for again elsewhere, and the first answer
counts. Nothing here trusts what a key server sends: the engine checks signatures, ids that were not asked for end
the connection, and whatever waits is bounded in number and time.
"""

import asyncio
import collections
import dataclasses
import itertools
import random
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, cast

from cext.crypto.sign import PrivateKey
from cext.tls.config import ClientConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edge.backoff import Backoff, spread
from edge.keyless import wire
from edge.keyless.stream import TlsStream
from edge.seldom import Seldom
from edge.shared import Shared
from edge.tls.certificate import digest
from edge.tls.verify import store, verify_server
from edge.trust import Trust

ATTEMPTS: Final = 3
"""How often a signature is asked for, at most."""
CONNECT_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 1.0
"""Between two looks at a connection, for what the next three are about."""
PING_SECONDS: Final = 10.0
"""A connection that has been silent for this long is asked whether it lives; key servers close silent ones after 30."""
DEAD_SECONDS: Final = 5.0
"""A connection that owes an answer for this long is given up."""
IDLE_SECONDS: Final = 60.0
"""Without a signature for this long, one connection to each server is enough."""
PROBE_SECONDS: Final = 30.0
PROBE_MOST: Final = 10
"""A server that is not the fastest, but no more than ten times as slow, is asked for a signature after half a minute
without one: it may have become fast."""
SPARE_MOST: Final = 20.0
SPARE_SHARE: Final = 0.1
"""Late signatures are asked for once more for a tenth of all, and 20 in a row."""
RESOLVE_SECONDS: Final = 60.0
BACK_OFF: Final = (0.05, 5.0)
"""Seconds between attempts to connect: the first, and the longest."""
LATE_LEAST: Final = 0.02
LATE_TIMES: Final = 4
"""Late is what takes four times as long as others did, but no less than 20 ms, and no more than half of all time."""
AT_A_TIME: Final = 8
"""Signatures that are passed on in one turn of the loop."""
_TICK: Final = (0.01, 0.1)
_SIGNATURE_MOST: Final = 2048

Report = Callable[[str, str], None]


class SignError(Exception):
    """No key server gave a signature; the text names them, and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """A key server as it is configured."""

    name: str
    """A literal address or a name."""
    port: int
    addresses: tuple[str, ...]
    """Where the name led when the file was read."""
    certified: str
    """Whom its certificate is to be for: a name or an address."""

    @property
    def is_literal(self) -> bool:
        return self.addresses == (self.name,)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Key servers, and how they are to be asked: what a Client is made of."""

    hosts: tuple[Host, ...]
    authorities: tuple[bytes, ...]
    """DER: who may have issued their certificates."""
    chain: tuple[bytes, ...]
    """DER: our certificate, which they are shown."""
    key_pem: bytes = dataclasses.field(repr=False)
    timeout: float
    """Seconds for a signature, all attempts together."""
    connections: int
    """To each address."""
    pending: int
    """Signatures that may be waited for at the same time."""

    def client_config(self, host: Host) -> object:
        """The engine's. Raises ValueError when certificate and key are of no use."""
        roots = store([x509.load_der_x509_certificate(der) for der in self.authorities])
        return ClientConfig(
            server_name=host.certified,
            verify=Trust(lambda chain: verify_server(roots, chain, host.certified)),
            credentials=[Credential(self.chain, PrivateKey.from_pem(self.key_pem))],
        )


def subject_key_identifier(public_key: bytes) -> bytes:
    """Of a SubjectPublicKeyInfo: the SHA-1 of the key's bits (RFC 5280, section 4.2.1.2, method 1)."""
    key = cast(CertificatePublicKeyTypes, load_der_public_key(public_key))
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


_clients: "Final[Shared[Servers, Client]]" = Shared()
"""Certificates with the same key servers share their connections."""


class KeylessSigner:
    """A private key on key servers. It can be pickled, and is equal to one of the same key and servers."""

    def __init__(self, servers: Servers, ski: bytes, server_name: str = "") -> None:
        """`ski`: see subject_key_identifier; `server_name` is told to the servers, for their logs."""
        self.servers = servers
        self.ski = ski
        self.server_name = server_name
        self._client: Client | None = None

    def __eq__(self, other: object) -> bool:
        """Whether both are one key at the same servers."""
        return isinstance(other, KeylessSigner) and self._what() == other._what()

    def __hash__(self) -> int:
        return hash(self._what())

    def __reduce__(self) -> tuple[Any, ...]:
        return KeylessSigner, self._what()

    def _what(self) -> tuple[Servers, bytes, str]:
        return self.servers, self.ski, self.server_name

    def start(self, aio: asyncio.AbstractEventLoop, report: Report) -> None:
        """In a worker: connects, and reports troubles by report(level, message). More than once is once."""
        if self._client is not None:
            return
        self._client = _clients.join(aio, self.servers, lambda: Client(self.servers, aio, report))

    def stop(self) -> None:
        """In the worker's loop: the key is not needed any more. Connections that no other key needs are closed."""
        client, self._client = self._client, None
        if client is not None and _clients.leave(client.loop, self.servers):
            client.close()

    async def sign(self, message: bytes, scheme: int) -> bytes:
        """See edge.tls.Signer. Raises SignError."""
        opcode = wire.OPCODES.get(scheme)
        if opcode is None:
            raise SignError(f"key servers have no operation for the signature scheme 0x{scheme:04x}")
        if self._client is None:
            raise SignError("the client of the key servers has not been started")
        return await self._client.ask(opcode, digest(message, scheme), self.ski, self.server_name.encode())


class Call:
    """A signature that is being waited for."""

    __slots__ = ("asked_at", "causes", "deadline", "future", "items", "late_at", "opcode", "open", "payload", "tried")

    def __init__(self, future: "asyncio.Future[bytes]", opcode: int, payload: bytes, deadline: float) -> None:
        self.future = future
        self.opcode = opcode
        self.payload = payload
        self.items: dict[str, bytes] = {}
        self.deadline = deadline
        self.asked_at = 0.0
        self.late_at = deadline
        self.tried: list[KeyServer] = []
        """Who was asked, in order; one may be asked twice."""
        self.open = 0
        """How many of these may still answer."""
        self.causes: dict[str, str] = {}
        """Why others will not, by who they are."""


class Client:
    """What asks the key servers of one configuration, in one loop."""

    def __init__(self, servers: Servers, aio: asyncio.AbstractEventLoop, report: Report) -> None:
        self.loop = aio
        self.report = Seldom(report)
        self.used_at = aio.time()
        self.connections = servers.connections
        self.servers: dict[tuple[Host, str], KeyServer] = {}
        """By host and address."""
        self._configured = servers
        self._configs = {host: servers.client_config(host) for host in servers.hosts}
        self._calls: dict[Call, None] = {}  # in the order in which they came
        self._unsent: dict[Call, None] = {}  # of those, the ones that no server was up for
        self._answers: collections.deque[tuple[Call, bytes]] = collections.deque()
        self._spare = SPARE_MOST  # attempts that may be made beyond the first
        self._tick = min(max(servers.timeout / 20, _TICK[0]), _TICK[1])
        self._ticking = False
        self._tasks: set[asyncio.Task[None]] = set()
        for host in servers.hosts:
            self._set_addresses(host, host.addresses)
        if not all(host.is_literal for host in servers.hosts):
            self.spawn(self._keep_resolved())

    # --- signatures

    async def ask(self, opcode: int, payload: bytes, ski: bytes, server_name: bytes) -> bytes:
        """The payload of the answer. Raises SignError."""
        loop, limit = self.loop, self._configured.pending
        if len(self._calls) >= limit:
            raise SignError(f"{limit} signatures are being waited for already (pending)")
        now = loop.time()
        call = Call(loop.create_future(), opcode, payload, now + self._configured.timeout)
        call.items = {"ski": ski, "server_name": server_name}
        self.used_at = now
        self._spare = min(self._spare + SPARE_SHARE, SPARE_MOST)
        self._calls[call] = None
        try:
            self._dispatch(call, now)
            if not self._ticking:
                self._ticking = True
                loop.call_later(self._tick, self._look)
            return await call.future
        finally:
            self._calls.pop(call, None)
            self._unsent.pop(call, None)

    def _dispatch(self, call: Call, now: float) -> None:
        """Asks the best server, or keeps the call until there is one."""
        server = self._choose(call, now)
        if server is None:
            self._unsent[call] = None
            if not any(server.will_try_by(call.deadline) for server in self.servers.values()):
                self._fail(call)
            return
        self._unsent.pop(call, None)
        call.asked_at = now
        call.late_at = now + min(max(LATE_TIMES * server.latency, LATE_LEAST), self._configured.timeout / 2)
        call.tried.append(server)
        call.open += 1
        server.ask(call)

    def _choose(self, call: Call, now: float) -> "KeyServer | None":
        up = [server for server in self.servers.values() if server.up]
        if len(up) < 2:
            return up[0] if up else None
        candidates = [server for server in up if server not in call.tried] or up
        best = min(candidates, key=KeyServer.cost)
        if not call.tried:
            for server in candidates:
                if server is not best and now - server.signed_at > PROBE_SECONDS:
                    server.signed_at = now
                    if server.latency < PROBE_MOST * best.latency:
                        return server
        return best

    def answered(self, call: Call, signature: bytes) -> None:
        """Each signature lets a handshake go on, which takes a while. Of many that come together a few are passed on at
        a time, so that the worker serves others between them."""
        call.open -= 1
        if not self._answers:
            self.loop.call_soon(self._pass_on)
        self._answers.append((call, signature))

    def _pass_on(self) -> None:
        for _ in range(min(len(self._answers), AT_A_TIME)):
            call, signature = self._answers.popleft()
            if not call.future.done():
                call.future.set_result(signature)
        if self._answers:
            self.loop.call_soon(self._pass_on)

    def failed(self, call: Call, server: "KeyServer", cause: str, *, refused: bool = False) -> None:
        """One attempt has. Another server is asked, or the same by another connection unless it has `refused`, while
        there is time; or another attempt is waited for."""
        call.open -= 1
        call.causes[str(server)] = cause
        self.report("warning", f"key server {server}: {cause}", f"{server} {cause}")
        if call.future.done() or call not in self._calls or call.open:
            return
        now = self.loop.time()
        others = any(other not in call.tried for other in self.servers.values() if other.up)
        if len(call.tried) >= ATTEMPTS or now >= call.deadline or (refused and not others):
            self._fail(call)
        else:
            self._dispatch(call, now)

    def _fail(self, call: Call) -> None:
        if call.future.done():
            return
        causes = call.causes or {str(server): server.trouble for server in self.servers.values()}
        told = "; ".join(f"key server {server}: {cause or 'no answer yet'}" for server, cause in causes.items())
        call.future.set_exception(SignError(told or "no key server has an address"))

    def server_is_up(self) -> None:
        """What waits for one is sent."""
        for call in list(self._unsent):
            self._dispatch(call, self.loop.time())

    def _look(self) -> None:
        """Now and then, while something is waited for: what is late is asked elsewhere, what has no time left fails."""
        if not self._calls:
            self._ticking = False
            return
        now = self.loop.time()
        for call in list(self._calls):
            if now >= call.deadline:
                self._time_out(call)
            elif call in self._unsent:
                self._dispatch(call, now)
            elif now >= call.late_at and not call.future.done():
                self._ask_another(call, now)
        self.loop.call_later(self._tick, self._look)

    def _time_out(self, call: Call) -> None:
        if call.future.done():
            return
        for server in call.tried:
            call.causes.setdefault(str(server), f"no signature within {self._configured.timeout:g} s")
        self._fail(call)

    def _ask_another(self, call: Call, now: float) -> None:
        """The call is late. Where all are, by a server's or our own fault, further attempts would make it worse: they
        are a small share of what is asked."""
        call.late_at = call.deadline
        last = call.tried[-1]
        last.was_late(now - call.asked_at)
        if len(call.tried) >= ATTEMPTS or self._spare < 1:
            return
        if sum(len(server.up) for server in self.servers.values()) > 1:
            self._spare -= 1
            self._dispatch(call, now)

    # --- servers

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that is ended with the client."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _set_addresses(self, host: Host, addresses: Sequence[str]) -> None:
        for (of, address), server in list(self.servers.items()):
            if of == host and address not in addresses:
                del self.servers[of, address]
                server.close()
        for address in addresses:
            if (host, address) not in self.servers:
                self.servers[host, address] = KeyServer(self, host, address, self._configs[host])

    async def _keep_resolved(self) -> None:
        while True:
            await asyncio.sleep(spread(RESOLVE_SECONDS))
            for host in self._configured.hosts:
                if host.is_literal:
                    continue
                try:
                    found = await self.loop.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
                except OSError as error:
                    self.report("warning", f"key server {host.name}: cannot be resolved: {error}", host.name)
                    continue
                self._set_addresses(host, list(dict.fromkeys(str(info[4][0]) for info in found)))

    def close(self) -> None:
        """Ends every connection; what is waited for fails."""
        for server in self.servers.values():
            server.close()
        for task in self._tasks:
            task.cancel()
        for call in self._calls:
            self._fail(call)


class KeyServer:
    """One address of a host: up to `client.connections` connections, each kept by a task of its own."""

    def __init__(self, client: Client, host: Host, address: str, tls: object) -> None:
        """`tls`: the engine's ClientConfig."""
        self.client = client
        self.host = host
        self.address = address
        self.tls = tls
        self.latency = 0.0
        """Seconds that an answer takes, the last ones weighing most; it rises at once and falls slowly."""
        self.signed_at = float("-inf")
        self.trouble = ""
        """Why the last attempt to connect failed."""
        self.up: list[Connection] = []
        self._next_try = [0.0] * client.connections
        self._tasks = [client.spawn(self._keep(i)) for i in range(client.connections)]

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.host.port}" + ("" if self.host.is_literal else f" ({self.host.name})")

    def cost(self) -> float:
        """What a further request is expected to take here."""
        waiting = sum(len(connection.asked) for connection in self.up)
        return (self.latency or 1e-4) * (1 + waiting / (16 * len(self.up)))

    def ask(self, call: Call) -> None:
        """By the connection that waits for the fewest answers, and not for this one. `up` is not empty."""
        others = self.up if call.open == 1 else [one for one in self.up if call not in one.asked.values()] or self.up
        min(others, key=lambda connection: len(connection.asked)).ask(call)

    def took(self, seconds: float) -> None:
        weight = 0.5 if seconds > self.latency else 0.1
        self.latency += (seconds - self.latency) * weight if self.latency else seconds

    def was_late(self, seconds: float) -> None:
        self.latency = max(self.latency, seconds)

    def will_try_by(self, deadline: float) -> bool:
        """Whether it may be up before then."""
        return min(self._next_try) < deadline

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in list(self.up):
            connection.end("the key server is no longer used")

    async def _keep(self, index: int) -> None:
        """Keeps one connection: the first for good, the others while there is something to sign."""
        client = self.client
        loop = asyncio.get_running_loop()
        backoff = Backoff(*BACK_OFF, by=0.5)
        while True:
            while index and loop.time() - client.used_at > IDLE_SECONDS:
                await asyncio.sleep(LOOK_SECONDS)
            self._next_try[index] = loop.time()
            connection = await self._connect()
            if connection is not None:
                backoff.succeeded()
                await self._serve(connection, index)
            pause = backoff.failed()
            self._next_try[index] = loop.time() + pause
            await asyncio.sleep(pause)

    async def _connect(self) -> "Connection | None":
        """A connection that has answered; None when there is none, told of."""
        loop = asyncio.get_running_loop()
        connection = Connection(self)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: connection, self.address, self.host.port)
                await connection.ready
        except (OSError, TimeoutError, SignError) as error:
            connection.cut("it was too late")
            late = isinstance(error, TimeoutError) and not str(error)
            self.trouble = f"no connection within {CONNECT_SECONDS:g} s" if late else _words(error)
            self.client.report("warning", f"key server {self}: {self.trouble}", f"{self} connect {self.trouble}")
            return None
        except asyncio.CancelledError:
            connection.cut("it is no longer wanted")
            raise
        self.trouble = ""
        return connection

    async def _serve(self, connection: "Connection", index: int) -> None:
        """Until the connection is over. It is asked whether it lives when it says nothing."""
        loop = asyncio.get_running_loop()
        self.up.append(connection)
        self.client.server_is_up()
        while not connection.over.done():
            await asyncio.wait((connection.over,), timeout=LOOK_SECONDS)
            if connection.over.done():
                break
            now = loop.time()
            if index and now - self.client.used_at > IDLE_SECONDS and not connection.asked:
                connection.end("it is idle")
            else:
                connection.look(now)
        self.trouble = connection.over.result()


class Connection(TlsStream):
    """One connection to a key server. `ready` is set by its first answer, and `over` to why it ended."""

    def __init__(self, server: KeyServer) -> None:
        super().__init__(Engine(server.tls))
        self.server = server
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.over: asyncio.Future[str] = self.loop.create_future()
        self.asked: dict[int, Call | None] = {}
        """By id, what has not been answered; None is a ping. A call stays here when nobody waits for it any more: its
        answer still comes."""
        self._asked_at: dict[int, float] = {}
        self._ids: Iterator[int] = itertools.count(random.getrandbits(32))
        self._decoder = wire.Decoder()
        self._heard_at = self.loop.time()

    def established(self) -> None:
        self._ping()

    def ask(self, call: Call) -> None:
        self._send(call, wire.build(self._new_id(), call.opcode, call.payload, **call.items))

    def _ping(self) -> None:
        self._send(None, wire.build(self._new_id(), wire.Opcode.PING))

    def _new_id(self) -> int:
        self._id = next(self._ids) & 0xFFFFFFFF
        return self._id

    def _send(self, call: Call | None, packet: bytes) -> None:
        self.asked[self._id] = call
        self._asked_at[self._id] = self.loop.time()
        self.send(packet)

    def look(self, now: float) -> None:
        """Now and then: whether the other end is there still."""
        if self.asked:
            waited = now - next(iter(self._asked_at.values()))
            if waited > DEAD_SECONDS:
                self.cut(f"no answer for {waited:.0f} s")
        elif now - self._heard_at > PING_SECONDS:
            self._ping()

    def data_came(self, data: bytes) -> None:
        self._heard_at = now = self.loop.time()
        for packet in self._decoder.feed(data):
            fault = self._take(packet, now)
            if fault:
                self.cut(f"breaks the protocol: {fault}")
                return

    def _take(self, packet: wire.Packet | wire.PacketError, now: float) -> str:
        """A fault of the server's, or "". """
        if packet.id is None or packet.id not in self.asked:
            return "an answer that nothing was asked for"
        if isinstance(packet, wire.PacketError):
            return str(packet)
        call = self.asked.pop(packet.id)
        seconds = now - self._asked_at.pop(packet.id)
        if call is None:
            return self._pong(packet, seconds)
        client = self.server.client
        if packet.opcode == wire.Opcode.ERROR:
            client.failed(call, self.server, _error(packet.value), refused=True)
            return ""
        if packet.opcode == wire.Opcode.RESPONSE and 0 < len(packet.value) <= _SIGNATURE_MOST:
            self.server.took(seconds)
            self.server.signed_at = now
            client.answered(call, packet.value)
            return ""
        fault = f"an answer with the opcode 0x{packet.opcode:02x} and {len(packet.value)} bytes"
        client.failed(call, self.server, f"breaks the protocol: {fault}")
        return fault

    def _pong(self, packet: wire.Packet, seconds: float) -> str:
        if packet.opcode != wire.Opcode.PONG:
            return "no pong to a ping"
        self.server.took(seconds)
        if not self.ready.done():
            self.ready.set_result(None)
        return ""

    def ended(self, cause: str) -> None:
        server = self.server
        if self in server.up:
            server.up.remove(self)
            server.client.report("info", f"key server {server}: {cause}", f"{server} ended {cause}")
        if not self.ready.done():
            self.ready.set_exception(SignError(cause))
            self.ready.exception()  # it may be nobody's any more
        self.over.set_result(cause)
        asked, self.asked = self.asked, {}
        for call in asked.values():
            if call is not None:
                server.client.failed(call, server, cause)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() if not error.strerror.startswith("Connect call") else "connection refused"
    return str(error) or type(error).__name__


def _error(payload: bytes) -> str:
    try:
        return f"answers {wire.Code(payload[0]).name.lower().replace('_', ' ')}"
    except (IndexError, ValueError):
        return f"answers error {payload[:8].hex() or 'without a number'}"
