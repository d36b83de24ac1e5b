"""Clients that hold what they can for as long as they can, some hundred of them at the same time: each is ended within
the limit that is meant for it, told of by its name in a log, while a neighbour is served and the worker stays small.
"""

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge
from tests.e2e.slow_client import EVERY, Slow, against
from tests.h2_peer import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    frame,
    request_fields,
    settings,
    window,
)

OF_EACH = int(os.environ.get("EDGE_SLOW_CLIENTS", "12"))
LIMIT = 0.5
"""Seconds of every limit, and of the grace of both rates."""
LATE = 2.5
"""Seconds after which an end has come too late, on a machine that is busy with all of these clients."""
CPU_EACH = 0.005
"""Seconds of the worker's time for one of them, its handshake included."""
MEMORY_EACH = 150 * 1024
"""Bytes: 256 KiB may wait for a client that takes nothing of a response, and most of them ask for none."""

GET_OK = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
BYTES = [b"x"] * 200


def post(path: bytes, framing: bytes = b"Content-Length: 100000") -> bytes:
    return POST % (path, framing)


# HTTP/1.1: each is called with a client that is connected.


async def head_by_bytes(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble(bytes((b,)) for b in b"GET /x HTTP/1.1\r\nHost: a\r\nX-Long: " + b"y" * 200)
    await reading


async def head_by_lines(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([b"GET /x HTTP/1.1\r\nHost: a\r\n"] + [b"X-%d: y\r\n" % n for n in range(200)])
    await reading


async def second_head_by_bytes(c: Slow) -> None:
    await c.send(GET_OK)
    await c.response()
    await head_by_bytes(c)


async def head_by_empty_lines(c: Slow) -> None:
    """Empty lines before a request are passed over, and are no request."""
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([b"\r\n"] * 200)
    await reading


async def nothing(c: Slow) -> None:
    await c.read_on()


async def half_a_record(c: Slow) -> None:
    """A record that is never whole, dribbled."""
    reading = asyncio.ensure_future(c.read_on())
    for b in c.seal(b"GET /x HTTP/1.1\r\n" * 100):
        if c.over:
            break
        await c.send_raw(bytes((b,)))
        await asyncio.sleep(EVERY)
    await reading


async def idle_with_half_a_record(c: Slow) -> None:
    await c.send(GET_OK)
    await c.response()
    await half_a_record(c)


async def idle(c: Slow) -> None:
    await c.send(GET_OK)
    await c.response()
    await c.read_on()


async def strict_head(c: Slow) -> None:
    """Whole within the listener's limit, too late for its route's."""
    reading = asyncio.ensure_future(c.read_on())
    await c.send(b"GET /strict HTTP/1.1\r\n")
    await asyncio.sleep(0.25)
    c.began -= LIMIT        # half of it is the route's limit, and was used up
    await c.send(b"Host: a\r\n\r\n")
    await reading


async def body_by_bytes(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([post(b"/rate/bytes"), *BYTES])
    await reading


async def body_by_chunks(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([post(b"/rate/chunks", CHUNKED)] + [b"1\r\nx\r\n"] * 200)
    await reading


async def body_stops(c: Slow) -> None:
    await c.send(post(b"/idle/stops") + b"x" * 1000)
    await c.read_on()


async def chunk_extension(c: Slow) -> None:
    """Bytes that bring no content are no progress."""
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([post(b"/idle/extension", CHUNKED) + b"5;x="] + [b"y"] * 200)
    await reading


async def trailers(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([post(b"/idle/trailers", CHUNKED) + b"1\r\nx\r\n0\r\nX-T: "] + [b"y"] * 200)
    await reading


async def reads_nothing(c: Slow) -> None:
    await c.send(b"GET /big/nothing HTTP/1.1\r\nHost: a\r\n\r\n")
    await hung_up(c)


async def reads_bytes(c: Slow) -> None:
    await c.send(b"GET /take/bytes HTTP/1.1\r\nHost: a\r\n\r\n")
    reading = asyncio.ensure_future(c.read_on(at_once=1, every=0.02))
    await hung_up(c)                # what has come before it would be read for long
    reading.cancel()


async def asks_for_more(c: Slow) -> None:
    """Requests go on, responses are not read: they are no progress."""
    asking = asyncio.ensure_future(c.dribble([b"GET /big/more HTTP/1.1\r\nHost: a\r\n\r\n"] * 100))
    await hung_up(c)
    await asking


async def hung_up(c: Slow) -> None:
    """Waits for the end without reading: a reset shows when something is sent, and the kernel's table tells of it."""
    while not c.over:
        await asyncio.sleep(0.02)
        state = c.sock.getsockopt(6, 11, 1)[0]      # TCP_INFO's first byte
        if state != 1:                              # not established
            c._end("reset" if state == 7 else "cut")


async def handshake_by_bytes(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    for b in c.client_hello():
        if c.over:
            break
        await c.send_raw(bytes((b,)))
        await asyncio.sleep(EVERY)
    await reading


# HTTP/2.


async def h2_nothing(c: Slow) -> None:
    c.speak_http2()
    await c.flush()
    await c.read_on()


async def h2_pings_only(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    c.speak_http2()
    await c.dribble([frame(PING, payload=b"12345678")] * 200)
    await reading


async def h2_block_without_end(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2()
    block = peer.encoder.encode(request_fields("/x"))
    await c.dribble([frame(HEADERS, END_STREAM, 1, block[:5]), *(frame(CONTINUATION, 0, 1, b"") for _ in range(3))])
    await reading


async def h2_block_by_bytes(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2()
    block = peer.encoder.encode(request_fields("/x", fields=[("x-long", "y" * 200)]))
    await c.dribble(bytes((b,)) for b in frame(HEADERS, END_STREAM, 1, block))
    await reading


async def h2_body_by_bytes(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2()
    stream = peer.post(path="/rate/h2-bytes", end=False)
    await c.flush()
    await c.dribble([frame(DATA, 0, stream, b"x")] * 200)
    await reading


async def h2_empty_data(c: Slow) -> None:
    """Frames that bring no content are no progress."""
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2()
    stream = peer.post(path="/idle/h2-empty", end=False)
    await c.flush()
    await c.dribble([frame(DATA, 0, stream)] * 200)
    await reading


async def h2_zero_window(c: Slow) -> None:
    c.speak_http2(initial_window_size=0).get("/big/h2-zero")
    await c.flush()
    await c.read_on()


async def h2_windows_of_one(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2(initial_window_size=0)
    stream = peer.get("/take/h2-ones")
    await c.dribble([window(stream, 1)] * 200)
    await reading


async def h2_connection_window(c: Slow) -> None:
    """Every stream has room, the connection has none."""
    c.speak_http2(initial_window_size=1 << 30).get("/big/h2-connection")
    await c.flush()
    await c.read_on()


async def h2_connection_window_of_one(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    c.speak_http2(initial_window_size=1 << 30).get("/take/h2-connection")
    await c.dribble([window(0, 1)] * 200)
    await reading


async def h2_reads_nothing(c: Slow) -> None:
    peer = c.speak_http2(initial_window_size=1 << 30)
    peer.get("/big/h2-nothing")
    peer.send(window(0, 1 << 30))
    await c.flush()
    await hung_up(c)


async def h2_idle(c: Slow) -> None:
    c.speak_http2().get("/ok")
    await c.flush()
    await c.response()
    await c.read_on()


async def h2_kept_by_pings(c: Slow) -> None:
    """Neither PINGs nor SETTINGS are requests."""
    c.speak_http2().get("/ok")
    await c.flush()
    await c.response()
    reading = asyncio.ensure_future(c.read_on())
    await c.dribble([frame(PING, payload=b"12345678"), settings(initial_window_size=65535)] * 100)
    await reading


async def h2_strict_head(c: Slow) -> None:
    reading = asyncio.ensure_future(c.read_on())
    peer = c.speak_http2()
    await c.flush()
    block = peer.encoder.encode(request_fields("/strict"))
    whole = frame(HEADERS, END_STREAM | 4, peer.stream(), block)
    await c.send(whole[:-1])
    await asyncio.sleep(0.25)
    c.began -= LIMIT
    await c.send(whole[-1:])
    while not (peer.responses[1].ended or c.over):
        await asyncio.sleep(0.01)
    c._end("response")
    await reading


@dataclasses.dataclass(frozen=True)
class Kind:
    act: Callable[[Slow], Awaitable[None]]
    error: str
    """In the access log, or, for what is no request yet, in the error log."""
    status: int | None
    ends: tuple[str, ...]
    protocol: str = "http/1.1"
    path: str = ""
    handshake: bool = True
    receive_buffer: int = 0


CLOSED = ("notify",)
CUT = ("cut", "reset")
HEADER, IDLE, RATE = "timeout: header", "timeout: body_idle", "timeout: min_rate"
STUCK, TAKE = "timeout: write_idle", "timeout: write_min_rate"
KEEPALIVE = "timeout: keepalive"
KINDS = [
    Kind(head_by_bytes, HEADER, 408, CLOSED),
    Kind(head_by_lines, HEADER, 408, CLOSED),
    Kind(second_head_by_bytes, HEADER, 408, CLOSED),
    Kind(head_by_empty_lines, HEADER, None, CLOSED),
    Kind(nothing, HEADER, None, CLOSED),
    Kind(half_a_record, HEADER, None, CLOSED),
    Kind(idle_with_half_a_record, KEEPALIVE, None, CLOSED),
    Kind(idle, KEEPALIVE, None, CLOSED),
    Kind(strict_head, HEADER, 408, CLOSED, path="/strict"),
    Kind(body_by_bytes, RATE, 408, CLOSED, path="/rate/bytes"),
    Kind(body_by_chunks, RATE, 408, CLOSED, path="/rate/chunks"),
    Kind(body_stops, IDLE, 408, CLOSED, path="/idle/stops"),
    Kind(chunk_extension, IDLE, 408, CLOSED, path="/idle/extension"),
    Kind(trailers, IDLE, 408, CLOSED, path="/idle/trailers"),
    Kind(reads_nothing, STUCK, None, CUT, path="/big/nothing", receive_buffer=4096),
    Kind(reads_bytes, TAKE, None, CUT, path="/take/bytes", receive_buffer=2304),
    Kind(asks_for_more, STUCK, None, CUT, path="/big/more", receive_buffer=4096),
    Kind(handshake_by_bytes, "handshake failed: timeout: handshake", None, CUT, handshake=False),
    Kind(h2_nothing, HEADER, None, CLOSED, "h2"),
    Kind(h2_pings_only, HEADER, None, CLOSED, "h2"),
    Kind(h2_block_without_end, HEADER, None, CLOSED, "h2"),
    Kind(h2_block_by_bytes, HEADER, None, CLOSED, "h2"),
    Kind(h2_body_by_bytes, RATE, 408, ("stream",), "h2", "/rate/h2-bytes"),
    Kind(h2_empty_data, IDLE, 408, ("stream",), "h2", "/idle/h2-empty"),
    Kind(h2_zero_window, STUCK, 200, ("stream",), "h2", "/big/h2-zero"),
    Kind(h2_windows_of_one, TAKE, 200, ("stream",), "h2", "/take/h2-ones"),
    Kind(h2_connection_window, STUCK, 200, ("stream",), "h2", "/big/h2-connection"),
    Kind(h2_connection_window_of_one, TAKE, 200, ("stream",), "h2", "/take/h2-connection"),
    Kind(h2_reads_nothing, STUCK, None, CUT, "h2", "/big/h2-nothing", receive_buffer=4096),
    Kind(h2_idle, KEEPALIVE, 200, CLOSED, "h2"),
    Kind(h2_kept_by_pings, KEEPALIVE, 200, CLOSED, "h2"),
    Kind(h2_strict_head, HEADER, 408, ("response",), "h2", "/strict"),
]


@dataclasses.dataclass
class Run:
    """What came of it all."""

    edge: Edge
    clients: dict[Kind, list[Slow]]
    neighbour: list[float]
    """Seconds of each of its requests."""
    cpu: float
    memory: int


def worker_cpu(edge: Edge) -> float:
    (pid,) = edge.workers()
    with open(f"/proc/{pid}/stat") as f:
        times = f.read().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def endless(connection, request) -> bool:
    """A response as fast and as long as it is taken."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(16000):
            connection.send(b"x" * 62500)
    return False


def patient(connection, request) -> bool:
    connection.body(request)
    return False


@pytest.fixture(scope="module")
def run(tmp_path_factory, pki):
    limit = f"{int(LIMIT * 1000)}ms"
    with Backend() as backend:
        backend.on("/big/*", endless)
        backend.on("/take/*", endless)
        backend.on("/rate/*", patient)
        backend.on("/idle/*", patient)
        timeouts = dict.fromkeys(("handshake", "header", "body_idle", "write_idle", "keepalive", "rate_grace"), limit)
        routes = [
            {"match": {}, "upstream": "b"},
            {"match": {"path": "/strict"}, "upstream": "b", "timeouts": {"header": "200ms"}},
            {"match": {"path": "/rate/*"}, "upstream": "b", "timeouts": {"body_idle": "none", "min_rate": "4KiB/s"}},
            {
                "match": {"path": "/take/*"},
                "upstream": "b",
                "timeouts": {"write_idle": "none", "write_min_rate": "1MiB/s"},
            },
        ]
        directory = tmp_path_factory.mktemp("slow")
        with Edge(directory, pki, {"b": [backend.server]}, routes=routes, listener={"timeouts": timeouts}) as edge:
            with Client(edge) as client:
                assert client.get("/ok").status == 200
            yield asyncio.run(attack(edge))
    assert backend.faults == []


async def attack(edge: Edge) -> Run:
    cpu = worker_cpu(edge)
    (memory,) = edge.rss().values()
    neighbour: list[float] = []
    serving = asyncio.ensure_future(asyncio.to_thread(be_served, edge, neighbour))
    clients: dict[Kind, list[Slow]] = {}
    running = []
    for n in range(OF_EACH):
        for kind in KINDS:
            client = Slow(edge, kind.protocol, kind.receive_buffer)
            clients.setdefault(kind, []).append(client)
            await client.connect(handshake=kind.handshake)
            running.append(asyncio.ensure_future(against(client, kind.act)))
        if n % 4 == 3:
            await asyncio.sleep(0.05)
    await asyncio.gather(*running)
    (after,) = edge.rss().values()
    spent = worker_cpu(edge) - cpu
    await serving
    return Run(edge, clients, neighbour, spent, after - memory)


def be_served(edge: Edge, neighbour: list[float]) -> None:
    end = time.monotonic() + 2.0
    with Client(edge) as client:
        while time.monotonic() < end:
            began = time.monotonic()
            assert client.get("/ok").status == 200
            neighbour.append(time.monotonic() - began)
            time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.act.__name__)
def test_it_ends_in_time(run, kind):
    for client in run.clients[kind]:
        assert client.over in kind.ends, client.over
        assert LIMIT * 0.9 <= client.seconds <= LATE, client.seconds
        assert client.status == kind.status


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.act.__name__)
def test_a_log_names_the_limit(run, kind):
    if kind.path:
        for client in run.clients[kind]:
            run.edge.wait_request(client_port=client.port, path=kind.path, error=kind.error)
        return
    for client in run.clients[kind]:
        if kind.status == 408:
            run.edge.wait_request(client_port=client.port, status=408, error=kind.error)
        else:
            run.edge.wait_error(rf"127\.0\.0\.1:{client.port}: {kind.error}$")


def test_a_neighbour_is_served(run):
    assert len(run.neighbour) > 10
    assert sorted(run.neighbour)[len(run.neighbour) // 2] < 0.2
    assert max(run.neighbour) < 1.5


def test_they_cost_little(run):
    n = len(KINDS) * OF_EACH
    assert run.cpu < CPU_EACH * n
    assert SANITIZED or run.memory < MEMORY_EACH * n


def test_nothing_is_left_of_those_that_were_reset(run):
    """The kernel holds nothing for a client that took nothing."""
    reset = [kind for kind in KINDS if kind.error == STUCK and kind.status is None]
    ports = {f"{c.port:04X}" for kind in reset for c in run.clients[kind]}
    with open("/proc/net/tcp") as table:
        left = [line for line in table if line.split()[2].rpartition(":")[2] in ports and line.split()[3] != "06"]
    ours = f"{run.edge.port:04X}"
    assert [line for line in left if line.split()[1].endswith(ours)] == []
