"""Everything at once: clients and backends that misbehave at random, and others whose answers are checked to the byte.

A fault here is a worker that died, an answer that belongs to another request, or a whole request without an answer.
EDGE_SLOW=1 goes on for minutes; a failure names its seed.
"""

import hashlib
import os
import random
import ssl
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, open_files, rss, wait_until
from tests.e2e.scripted import Backend

SECONDS = [pytest.param(4, id="4 s"), pytest.param(120, id="120 s", marks=pytest.mark.slow)]


def content(number: int) -> bytes:
    """What answers request `number`: of any size, and of no other request."""
    rng = random.Random(number)
    size = rng.choice((0, 1, 100, 5000, 16384, 16385, 70_000, 300_000))
    return (hashlib.sha256(str(number).encode()).hexdigest() * (size // 64 + 1)).encode()[:size]


def chunked(data: bytes, rng: random.Random) -> bytes:
    parts = []
    while data:
        n = rng.choice((1, 10, 1000, 20_000, 100_000))
        parts.append(b"%x\r\n%s\r\n" % (len(data[:n]), data[:n]))
        data = data[n:]
    return b"".join(parts) + b"0\r\n" + rng.choice((b"", b"X-End: 1\r\n")) + b"\r\n"


def behave(connection, request):
    """/good/N answers rightly, in a form that N decides; /bad/N fails in a way that N decides."""
    _, kind, number = request.target.split("/")
    number = int(number)
    rng = random.Random(number + 1)
    if kind == "bad" and rng.random() < 0.2:
        return False
    connection.body(request)
    data = content(number)
    keep = rng.random() < 0.7
    head = b"HTTP/1.1 200 OK\r\nX-Body: %s\r\n" % hashlib.sha256(request.body).hexdigest().encode()
    head += b"" if keep else b"Connection: close\r\n"
    if rng.random() < 0.5:
        message = head + b"Content-Length: %d\r\n\r\n" % len(data) + data
    elif rng.random() < 0.7:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(data, rng)
    else:
        message, keep = head + b"\r\n" + data, False
    if kind == "bad":
        fate = rng.randrange(5)
        cut = rng.randrange(len(message))
        if fate == 0:
            connection.send(message[:cut])
            return False
        if fate == 1:
            connection.send(message[:cut] + rng.randbytes(50) + message[cut:])
            return False
        if fate == 2:
            connection.send(message[:cut])
            connection.reset()
            return False
        if fate == 3:
            connection.send(rng.randbytes(200))
            return False
        connection.send(message + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
        return keep
    while message:
        n = rng.choice((10, 1000, 50_000, 1_000_000))
        connection.send(message[:n])
        message = message[n:]
        if rng.random() < 0.05:
            time.sleep(0.002)
    return keep


def message(method: str, kind: str, number: int, rng: random.Random, more: str = "") -> tuple[bytes, bytes]:
    """A request, and its body."""
    body = content(number + 1) if method == "POST" else b""
    head = f"{method} /{kind}/{number} HTTP/1.1\r\nHost: edge.test\r\n{more}"
    if method == "GET":
        return f"{head}\r\n".encode(), body
    if rng.random() < 0.5:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, body
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(body, rng), body


class Crowd:
    def __init__(self, edge, seed: int) -> None:
        self.edge, self.seed = edge, seed
        self.numbers = iter(range(1, 1 << 60))
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.served = 0
        self.faults: list[str] = []

    def number(self) -> int:
        with self.lock:
            return next(self.numbers) * 7 + self.seed * 1_000_003

    def well_behaved(self, rng: random.Random) -> None:
        """Some requests on one connection, pipelined or not; each must get its own answer, whole."""
        with Client(self.edge, seconds=20) as client:
            for _ in range(rng.randint(1, 6)):
                # Only GETs may be sent ahead: a POST that follows a stale connection is not repeated.
                batch = []
                for _ in range(rng.choice((1, 1, 1, 3, 8))):
                    number = self.number()
                    batch.append((number, *message("GET" if rng.random() < 0.6 else "POST", "good", number, rng)))
                client.pump(b"".join(sent for _, sent, _ in batch))
                for number, _, body in batch:
                    response = client.response()
                    assert response.status == 200, f"{response.status} for {number}"
                    assert response.body == content(number), f"another answer for {number}"
                    assert response.get("x-body") == hashlib.sha256(body).hexdigest(), f"another body for {number}"
                    self.served += 1

    def badly_behaved(self, rng: random.Random) -> None:
        """Asks for failures, sends nonsense, leaves in the middle; whatever comes back is its own affair."""
        try:
            with Client(self.edge, seconds=5, receive_buffer=rng.choice((0, 4096))) as client:
                data = b""
                for _ in range(rng.randint(1, 4)):
                    kind = rng.choice(("good", "bad"))
                    data += message(rng.choice(("GET", "POST")), kind, self.number(), rng)[0]
                fate = rng.randrange(5)
                if fate == 0:
                    data = data[: rng.randrange(len(data))]
                elif fate == 1:
                    at = rng.randrange(len(data))
                    data = data[:at] + rng.randbytes(10) + data[at:]
                client.pump(data) if rng.random() < 0.7 else client.send(data[:10_000])
                for _ in range(rng.randrange(4)):
                    client.response()
        except (OSError, AssertionError, ValueError, IndexError, ssl.SSLError):
            pass

    def run(self, which: str, seed: int) -> None:
        rng = random.Random(seed)
        while not self.stop.is_set():
            try:
                getattr(self, which)(rng)
            except Exception as e:
                self.faults.append(f"{which} (seed {seed}): {e!r}")
                return


@pytest.mark.parametrize("seconds", SECONDS)
def test_chaos(make_edge, seconds):
    seed = int(os.environ.get("EDGE_CHAOS_SEED", "0")) or int.from_bytes(os.urandom(2), "big")
    with Backend() as good, Backend() as bad:
        good.on("/good/*", behave)
        bad.on("/bad/*", behave)
        # Kept apart: what a bad backend does to its connections is no excuse for a good one's answers.
        routes = [{"match": {"path": "/good/*"}, "upstream": "good"}, {"match": {"path": "/bad/*"}, "upstream": "bad"}]
        timeouts = {"first_byte": "2s", "body_idle": "2s", "write_idle": "2s"}
        for route in routes:
            route["timeouts"] = timeouts
        edge = make_edge({"good": [good.server], "bad": [bad.server]}, routes=routes, server={"workers": 2})
        workers = edge.workers()
        files = {pid: open_files(pid) for pid in workers}
        crowd = Crowd(edge, seed)
        threads = [
            threading.Thread(target=crowd.run, args=(which, seed * 100 + i), daemon=True)
            for i, which in enumerate(["well_behaved"] * 4 + ["badly_behaved"] * 4)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not crowd.faults:
            time.sleep(0.1)
        crowd.stop.set()
        for thread in threads:
            thread.join(30)
        assert not crowd.faults, (seed, crowd.faults)
        assert crowd.served > 10 * seconds
        assert edge.workers() == workers, seed
        for pid in workers:
            wait_until(lambda pid=pid: open_files(pid) <= files[pid] + 24, 12, f"closing (seed {seed})")
            assert SANITIZED or rss(pid) < 120 << 20
        assert good.faults == []
