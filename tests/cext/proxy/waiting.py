"""Handshakes that wait: who is waited for, and clients that are in the midst of one."""

import asyncio
import contextlib
import queue
import socket

from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig
from cext.tls.credential import Credential
from cext.tls.engine import DATA, Engine

from tests.cext.proxy.harness import SECONDS, Reader
from tests.cext.tls.peer import credential

TLS12, TLS13 = 0x0303, 0x0304


class Held:
    """Calls that wait until they are answered: `await held(x)` gives what the test answers x with."""

    def __init__(self):
        self.waiting = queue.SimpleQueue()
        self.cancelled = queue.SimpleQueue()

    async def __call__(self, *arguments):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.put((loop, future, arguments))
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.put(arguments)
            raise

    def next(self):
        """The next call: its arguments, and answer(value or exception)."""
        loop, future, arguments = self.waiting.get(timeout=SECONDS)

        def answer(outcome):
            put = future.set_exception if isinstance(outcome, Exception) else future.set_result
            loop.call_soon_threadsafe(lambda: future.done() or put(outcome))

        return arguments, answer


class Signer:
    def __init__(self, sign):
        self.sign = sign


def remote(sign, kind="ecdsa-p256"):
    """A credential whose key is somewhere else: sign(message, scheme)."""
    return Credential(credential(kind).chain, Signer(sign), credential(kind).names)


def signature(message, scheme, kind="ecdsa-p256"):
    return credential(kind).key.sign_bytes(scheme, message)


class EngineClient(Reader):
    """A client of our own engine on a socket: for sessions, early data, and steps one at a time."""

    def __init__(self, edge, session=None, **config):
        config.setdefault("alpn", (b"http/1.1",))
        self.tcp = socket.create_connection(("127.0.0.1", edge.port), timeout=SECONDS)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = Engine(ClientConfig(server_name="example.com", session=session, **config))
        self.closed = False
        super().__init__(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def flush(self):
        self.tcp.sendall(self.tls.take_output())

    def step(self):
        """One receive -> whether something came."""
        got = self.tcp.recv(65536)
        for event, data in self.tls.receive_bytes(got):
            if event == DATA:
                self.buffer += data
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.flush()
        return bool(got)

    def handshake(self):
        """To its end. The engine's failure is raised."""
        self.flush()
        while not self.tls.established and self.tls.failure is None:
            if not self.step():
                raise EOFError("closed in the handshake")
        if self.tls.failure is not None:
            raise self.tls.failure
        return self

    def send(self, data):
        self.tls.send(data)
        self.flush()

    def more(self):
        before = len(self.buffer)
        while len(self.buffer) == before:
            if not self.step():
                return False
            if self.tls.failure is not None:
                raise self.tls.failure
        return True

    def close(self):
        self.tcp.close()


def alert_of(edge, **config):
    """The alert that a handshake ends with."""
    with EngineClient(edge, **config) as client:
        try:
            client.handshake()
        except TlsAlert as alert:
            assert not alert.sent
            return alert.name
    return None
