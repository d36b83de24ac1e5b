"""The same first flight at several hosts at once, and again later, by a client that has nothing but its bytes."""

import collections
import dataclasses
import random
import selectors
import socket
import threading
import time
from typing import Any

from cext.tls.config import ClientConfig
from cext.tls.engine import Engine

from tests.fleet.fleet import Fleet

RECORDED = 256
"""Flights of which any may be sent again, to one host, with the next."""
LINGERING = 24
"""Connections that are kept for a while, so that nothing ends for want of its client."""
SECONDS = 20


def flight(session: Any, path: str) -> bytes:
    """A ClientHello and a request in early data, as somebody could record them."""
    client = Engine(ClientConfig(server_name="edge.test", alpn=[b"http/1.1"], early_data=True), session)
    client.send(f"GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
    return client.take_output()


@dataclasses.dataclass
class Replays:
    """What came of flights that went to all hosts at once."""

    fleet: Fleet
    tries: int = 0
    waits: list[float] = dataclasses.field(default_factory=list)
    """Seconds until each server's first bytes."""
    unanswered: int = 0

    def __post_init__(self) -> None:
        self._lingering: collections.deque[socket.socket] = collections.deque()
        self._recorded: collections.deque[bytes] = collections.deque(maxlen=RECORDED)

    def run(self, count: int, *, until: threading.Event | None = None) -> "Replays":
        """So many, each of another ClientHello, or fewer when there is word to end."""
        sessions = [self.fleet.session(server) for server in self.fleet.servers]
        for i in range(count):
            if until is not None and until.is_set():
                break
            self.one(sessions[i % len(sessions)], i)
        self.close()
        return self

    def close(self) -> None:
        """Lets go of connections: servers count then what became of them."""
        while self._lingering:
            self._lingering.popleft().close()

    def one(self, session: Any, turn: int) -> None:
        path = f"/once/{self.tries}"
        recorded = flight(session, path)
        self.tries += 1
        servers = self.fleet.servers
        # Each is the first one in turn.
        order = servers[turn % len(servers) :] + servers[: turn % len(servers)]
        flights = [recorded] * len(order)
        if self._recorded:
            order = [*order, random.choice(order)]
            flights = [*flights, random.choice(self._recorded)]
        self._recorded.append(recorded)
        socks = [self.fleet.connect(server) for server in order]
        began = time.monotonic()
        for sock, one in zip(socks, flights, strict=True):
            sock.send(one)
        self._await_answers(socks, began)
        self._lingering += socks
        while len(self._lingering) > LINGERING:
            self._lingering.popleft().close()

    def _await_answers(self, socks: list[socket.socket], began: float) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in socks:
                selector.register(sock, selectors.EVENT_READ)
            waiting = len(socks)
            while waiting and time.monotonic() < began + SECONDS:
                for key, _ in selector.select(SECONDS):
                    selector.unregister(key.fileobj)
                    waiting -= 1
                    self.waits.append(time.monotonic() - began)
            self.unanswered += waiting

    def outcome(self) -> str:
        """In words; and that none was accepted oftener than once."""
        accepted = self.accepted()
        oftener = {of: n for of, n in accepted.items() if of > 1}
        assert not oftener, f"accepted so often: so many flights: {oftener}"
        assert self.unanswered == 0
        return (
            f"{self.tries} flights, each at {len(self.fleet.servers)} hosts at once: "
            f"accepted once {accepted[1]}, oftener 0, never {accepted[0]}; first bytes within {max(self.waits):.3f} s"
        )

    def accepted(self) -> collections.Counter[int]:
        """How many flights were accepted how often."""
        early = self.fleet.backend.early
        return collections.Counter(early[f"/once/{i}"] for i in range(self.tries))


class Pulse:
    """Requests on kept connections, one to each host in turn: what everybody else notices."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.longest = 0.0
        self.count = 0
        self.faults: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Pulse":
        self._clients = [self.fleet.client(server) for server in self.fleet.servers]
        for client in self._clients:
            client.confirm()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
        for client in self._clients:
            client.close()

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.01):
                for client in self._clients:
                    began = time.monotonic()
                    client.send(b"GET /pulse HTTP/1.1\r\nHost: edge.test\r\n\r\n")
                    got = b""
                    while not got.endswith(b"\r\n\r\nok"):
                        got += client.recv(1000)
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.count += 1
        except Exception as e:
            self.faults.append(repr(e))
