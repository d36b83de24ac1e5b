"""Bodies of any size through bounded memory: what one side does not take, the other side is not asked for.

The suite moves 1 GiB; the 10 GiB of the requirement by `EDGE_SLOW=1` (see `slow` in conftest).
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, rss, wait_until
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge, settled

MIB = 1 << 20
GROWTH = 2 * MIB
KERNEL_BUFFERS = 64 * MIB
"""More than four socket buffers hold, however far the kernel tunes them."""
PIECE = bytes(256 * 1024)


class Peak:
    """The most memory a process has had above its begin, looked at every few milliseconds."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.growth = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.growth = max(self.growth, rss(self.pid) - self.begin)

    def __enter__(self) -> "Peak":
        self.begin = rss(self.pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.growth = max(self.growth, rss(self.pid) - self.begin)


def source(size: int, chunked: bool):
    """A handler that streams `size` bytes as fast as they are taken, and counts them in `sent`."""

    def handler(connection, request):
        connection.sock.settimeout(120)
        handler.sent = 0
        head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE
        while handler.sent < size:
            connection.send(piece)
            handler.sent += len(PIECE)
        if chunked:
            connection.send(b"0\r\n\r\n")
        return True

    handler.sent = 0
    return handler


@pytest.fixture(scope="module")
def streaming(tmp_path_factory, pki):
    """One worker, warm: one large response and one large request have passed already."""
    with (
        Backend() as backend,
        Edge(tmp_path_factory.mktemp("streaming"), pki, {"b": [backend.server]}) as edge,
    ):
        edge.backend = backend
        for chunked in (False, True):
            backend.on("/warm", source(8 * MIB, chunked))
            with Client(edge) as client:
                client.get("/warm")
        backend.on("/sink", sink())
        upload(edge, 8 * MIB, 8 * MIB)
        yield edge
        assert backend.faults == []


def sink(pause: float = 0.0, stall: float = 0.0):
    """A handler that takes a body in small pieces, `stall` seconds late, and tells how long it was."""

    def handler(connection, request):
        connection.sock.settimeout(120)
        handler.taken = len(connection.received)
        length = int(request.get("content-length"))
        connection.received = b""
        time.sleep(stall)
        buffer = bytearray(MIB)
        while handler.taken < length:
            handler.taken += connection.sock.recv_into(buffer) or pytest.fail("ended in the body")
            time.sleep(pause)
        text = str(handler.taken).encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        return True

    handler.taken = 0
    return handler


def upload(edge, size: int, sent_by: int) -> bytes:
    with Client(edge, seconds=120) as client:
        client.send(b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(PIECE)):
            client.sock.sendall(PIECE)
        return client.response().body


def download(client, size: int, slow: bool) -> int:
    """Takes all of it; a slow reader rests now and then, so that everything before it fills up."""
    client.head()
    got = len(client.received)
    client.received = b""
    buffer = bytearray(MIB)
    rest_at = got
    while got < size:
        n = client.sock.recv_into(buffer)
        assert n, f"closed after {got} bytes"
        got += n
        if slow and got >= rest_at:
            time.sleep(0.02)
            rest_at += size // 64
    return got


def stands_still(sent) -> None:
    """The sender is held back: what it got rid of fills the kernel's buffers and ours, and grows no more."""
    wait_until(sent, 20, "a begin")
    assert settled(sent, seconds=3, step=0.2) < KERNEL_BUFFERS
    before = sent()
    time.sleep(0.2)
    assert sent() == before


SIZES = [pytest.param(1 << 30, id="1 GiB"), pytest.param(10 << 30, id="10 GiB", marks=pytest.mark.slow)]


@pytest.mark.parametrize("size", SIZES)
def test_download_by_a_slow_reader(streaming, size):
    handler = source(size, chunked=False)
    streaming.backend.on("/large", handler)
    [worker] = streaming.workers()
    with Peak(worker) as peak, Client(streaming, seconds=120, receive_buffer=64 * 1024) as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        # Nothing is taken for a while: everything fills up, and stands still.
        stands_still(lambda: handler.sent)
        assert download(client, size, slow=True) == size
    assert SANITIZED or peak.growth < GROWTH, f"{peak.growth / MIB:.1f} MiB"


def test_chunked_download_by_a_slow_reader(streaming):
    size = 128 * MIB
    handler = source(size, chunked=True)
    streaming.backend.on("/chunked", handler)
    [worker] = streaming.workers()
    with Peak(worker) as peak, Client(streaming, seconds=120, receive_buffer=64 * 1024) as client:
        client.send(b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n")
        stands_still(lambda: handler.sent)
        download(client, size, slow=True)
        while b"0\r\n\r\n" not in client.received[-5:]:
            client.received = client.received[-5:]
            assert client.more()
    assert SANITIZED or peak.growth < GROWTH, f"{peak.growth / MIB:.1f} MiB"


@pytest.mark.parametrize("size", SIZES)
def test_upload_to_a_slow_backend(streaming, size):
    handler = sink(stall=2.0)
    streaming.backend.on("/sink", handler)
    [worker] = streaming.workers()
    sent = [0]
    watcher = ThreadPoolExecutor(1)
    with Peak(worker) as peak, Client(streaming, seconds=120) as client:
        client.send(b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        held_back = watcher.submit(stands_still, lambda: sent[0])  # while the backend takes nothing
        for _ in range(size // len(PIECE)):
            client.sock.sendall(PIECE)
            sent[0] += len(PIECE)
        held_back.result()
        assert client.response().body == str(size).encode()
    assert SANITIZED or peak.growth < GROWTH, f"{peak.growth / MIB:.1f} MiB"


def test_many_slow_readers(streaming):
    """What stands queued is bounded for each connection, and comes back when they go."""
    streaming.backend.on("/large", source(1 << 30, chunked=False))
    [worker] = streaming.workers()
    clients = [Client(streaming, receive_buffer=16 * 1024) for _ in range(20)]
    before = rss(worker)
    for client in clients:
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(1)
    each = (rss(worker) - before) / len(clients)
    for client in clients:
        client.raw.close()
        client.sock.close()
    assert SANITIZED or each < MIB, f"{each / 1024:.0f} KiB each"
    with Client(streaming) as client:
        assert client.get("/ok").status == 200


def test_others_are_served_meanwhile(streaming):
    """A transfer at full speed leaves the worker's other connections their turns."""
    streaming.backend.on("/large", source(1 << 30, chunked=False))
    done = threading.Event()

    def take() -> None:
        with Client(streaming, seconds=60) as client:
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            client.head()
            buffer = bytearray(MIB)
            while not done.is_set():
                client.sock.recv_into(buffer)
            client.raw.close()

    taker = threading.Thread(target=take)
    taker.start()
    try:
        slowest = 0.0
        with Client(streaming) as client:
            for _ in range(100):
                begin = time.monotonic()
                assert client.get("/ok").status == 200
                slowest = max(slowest, time.monotonic() - begin)
    finally:
        done.set()
        taker.join(10)
    assert slowest < 1.0
