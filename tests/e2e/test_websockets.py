"""WebSockets through the edge: the `websockets` library at both ends over HTTP/1.1, ours over HTTP/2 (RFC 8441)."""

import asyncio
import contextlib
import hashlib
import os
import pwd
import socket
import ssl
import time

import pytest
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, rss, wait_until
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge
from tests.e2e.sockets import MIB, PIECE, Sockets
from tests.e2e.test_backpressure import GROWTH, Peak
from tests.h2_peer import DATA, END_STREAM, H2Peer, frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
SIZES = [0, 1, 125, 126, 65535, 65536, MIB, 16 * MIB]


@pytest.fixture(scope="module")
def sockets():
    with Sockets() as server:
        yield server


@pytest.fixture(scope="module")
def scripted():
    with Backend() as backend:
        yield backend
        assert backend.faults == []


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, sockets, scripted):
    routes = [
        {"match": {}, "upstream": "sockets"},
        {"match": {"path": "/s/*"}, "upstream": "scripted", "upgrade": ["websocket", "raw/1"]},
        {"match": {"path": "/off/*"}, "upstream": "scripted", "upgrade": []},
    ]
    upstreams = {"sockets": [sockets.server], "scripted": [scripted.server]}
    with Edge(tmp_path_factory.mktemp("sockets"), pki, upstreams, routes=routes) as edge:
        yield edge


def to(edge, path, **how):
    """A client's socket."""
    how = {"compression": None, "max_size": 32 * MIB, "ping_interval": None, "close_timeout": 5, **how}
    context = edge.tls_context()
    return connect(f"wss://edge.test:{edge.port}{path}", ssl=context, host="127.0.0.1", proxy=None, **how)


def run(conversation):
    return asyncio.run(asyncio.wait_for(conversation, 60))


def message(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(size)


# ---- messages

@pytest.mark.parametrize("compression", [None, "deflate"])
def test_echo(edge, compression):
    sizes = SIZES[:-1] if compression else SIZES        # what does not compress takes a second per MiB to find out

    async def talk():
        async with to(edge, "/echo", compression=compression) as ws:
            assert len(ws.protocol.extensions) == (compression is not None)
            for size in sizes:
                data = message(size)
                await ws.send(data)
                whole = await ws.recv() == data
                assert whole, size
            await ws.send("text, and ünïcode")
            assert await ws.recv() == "text, and ünïcode"
        return ws.close_code

    known = len(edge.requests(path="/echo"))
    assert run(talk()) == 1000
    record = edge.wait_request(known + 1, path="/echo")
    assert (record["status"], record["upgrade"], record["ended_by"]) == (101, "websocket", "upstream")
    assert "error" not in record
    for side in ("bytes_in", "bytes_out"):
        assert sum(sizes) < record[side] < sum(sizes) * 1.01


def test_compression_reaches_the_server(edge):
    """The frames pass as they are: what compresses well is few bytes on both ways."""
    async def talk():
        async with to(edge, "/echo?compressed", compression="deflate") as ws:
            await ws.send("x" * MIB)
            assert await ws.recv() == "x" * MIB

    run(talk())
    record = edge.wait_request(path="/echo?compressed")
    assert record["bytes_in"] < 10_000
    assert record["bytes_out"] < 10_000


def test_fragments_pings_and_small_messages(edge):
    async def talk():
        async with to(edge, "/echo") as ws:
            await ws.send(iter(["three ", "fragments ", "of one"]))
            assert await ws.recv() == "three fragments of one"
            for n in range(20):
                pong = await ws.ping(b"%d" % n)
                await asyncio.wait_for(pong, 5)
            for n in range(500):
                await ws.send(b"%d" % n)
            for n in range(500):
                assert await ws.recv() == b"%d" % n

    run(talk())


def test_subprotocols_and_origin(edge, sockets):
    async def talk():
        async with to(edge, "/echo", subprotocols=["other", "chat"], origin="https://edge.test") as ws:
            return ws.subprotocol

    assert run(talk()) == "chat"
    assert sockets.origins[-1] == "https://edge.test"


@pytest.mark.parametrize("code", [1000, 1001, 3001, 4999])
def test_close_codes(edge, sockets, code):
    async def from_the_client():
        async with to(edge, f"/echo?{code}") as ws:
            await ws.close(code, "enough")

    async def from_the_server():
        async with to(edge, f"/close?{code}") as ws:
            await ws.send("now")
            with pytest.raises((ConnectionClosedOK, ConnectionClosedError)):
                await ws.recv()
            return ws.close_code, ws.close_reason

    run(from_the_client())
    wait_until(lambda: (f"/echo?{code}", code) in sockets.ends, 20, "the client's code")
    assert run(from_the_server()) == (code, "as you wish")


def test_many_at_once(edge, sockets):
    async def one(n):
        async with to(edge, f"/echo?{n}") as ws:
            for i in range(5):
                await ws.send(f"{n} {i}")
                assert await ws.recv() == f"{n} {i}"
            all_open.append(n)
            while len(all_open) < 200:
                await asyncio.sleep(0.01)
            return ws.close_code

    async def talk():
        await asyncio.gather(*(one(n) for n in range(200)))

    all_open = []
    run(talk())
    wait_until(lambda: sockets.open == 0, 20, "all to be closed")


# ---- slow readers

@pytest.mark.skipif(SANITIZED, reason="its memory is no measure")
def test_a_slow_client(edge, sockets):
    total = 96
    (worker,) = edge.workers()

    async def talk():
        async with to(edge, f"/flood?{total}", max_queue=1) as ws:
            await asyncio.sleep(0.7)
            before = sockets.sent
            await asyncio.sleep(0.3)
            assert sockets.sent == before < total / 2       # held back
            for _ in range(total):
                assert len(await ws.recv()) == MIB

    with Peak(worker) as peak:
        run(talk())
    assert peak.growth < 2 * GROWTH


@pytest.mark.skipif(SANITIZED, reason="its memory is no measure")
def test_a_slow_server(edge, sockets):
    total = 96
    (worker,) = edge.workers()

    async def talk():
        sent = 0
        async with to(edge, "/hold") as ws:
            with contextlib.suppress(TimeoutError):
                while sent < total:
                    async with asyncio.timeout(0.7):
                        await ws.send(PIECE)
                    sent += 1
            assert sent < total / 2                         # held back
            sockets.release.set()
            for _ in range(sent + 1, total):
                await ws.send(PIECE)
            await ws.send("end")
            return int(await ws.recv()), sent

    with Peak(worker) as peak:
        got, sent = run(talk())
    # The send that was cancelled is in the client's own buffer and goes out all the same.
    assert got == total * MIB, sent
    assert peak.growth < 2 * GROWTH


@pytest.mark.skipif(SANITIZED, reason="its memory is no measure")
def test_sockets_that_rest_are_small(edge, scripted):
    """Both connections and what joins them: 2.9 KiB, while nothing moves."""
    number, most = 400, 4 * 1024
    context = edge.tls_context()

    def stay(connection, request):
        connection.send(b"HTTP/1.1 101 Go\r\nUpgrade: raw/1\r\nConnection: upgrade\r\n\r\n")
        connection.sock.settimeout(60)
        connection.wait_closed(60)

    def one():
        client = Client(edge, context=context)
        client.send(b"GET /s/stay HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        return client

    scripted.on("/s/stay", stay)
    (worker,) = edge.workers()
    with contextlib.ExitStack() as clients:
        for _ in range(50):
            clients.callback(one().close)
        time.sleep(0.8)
        before = rss(worker)
        for _ in range(number):
            clients.callback(one().close)
        time.sleep(0.8)
        assert rss(worker) - before < number * most


# ---- abrupt ends

def test_a_client_that_is_gone(edge, sockets):
    async def talk():
        ws = await to(edge, "/echo?gone")
        await ws.send("x")
        await ws.recv()
        ws.transport.abort()

    run(talk())
    wait_until(lambda: ("/echo?gone", 1006) in sockets.ends, 20, "the server to see it")
    record = edge.wait_request(path="/echo?gone")
    assert (record["ended_by"], record["error"]) in [("client", "client closed"), ("client", "client reset")]


def test_a_server_that_is_gone(edge):
    async def talk():
        async with to(edge, "/abort") as ws:
            await ws.send("x")
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            return ws.close_code

    assert run(talk()) == 1006
    assert edge.wait_request(path="/abort")["ended_by"] == "upstream"


# ---- time

def test_the_idle_timeout(make_edge, sockets):
    edge = make_edge({"sockets": [sockets.server]}, route_timeouts={"websocket_idle": "600ms", "total": "300ms"})

    async def silent():
        async with to(edge, "/echo?silent") as ws:
            start = time.monotonic()
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            return time.monotonic() - start

    async def pinging():
        async with to(edge, "/echo?pinging", ping_interval=0.2) as ws:
            await asyncio.sleep(1.5)
            await ws.send("still here")
            return await ws.recv()

    async def both():
        return await asyncio.gather(silent(), pinging())

    waited, answer = run(both())
    assert 0.5 < waited < 3
    assert answer == "still here"
    assert edge.wait_request(path="/echo?silent")["error"] == "timeout: websocket_idle"
    assert "error" not in edge.wait_request(path="/echo?pinging")


def test_reload_and_drain(make_edge, sockets):
    """A socket outlives a reload, also one that replaces workers: on the one that drains, until drain_timeout."""
    edge = make_edge({"sockets": [sockets.server]}, server={"drain_timeout": "2s", "workers": 1})

    async def reload(generation: int) -> None:
        edge.write()
        edge.reload()
        await asyncio.to_thread(edge.wait_error, f"generation {generation} serves", seconds=30)

    async def talk():
        async with to(edge, "/echo?old") as old:
            await reload(2)
            await old.send("a")
            assert await old.recv() == "a"
            edge.tables["server"]["workers"] = 2
            edge.tables["server"]["user"] = pwd.getpwuid(os.geteuid()).pw_name  # the one that it is: as good as another
            await reload(3)
            reloaded = time.monotonic()
            await asyncio.sleep(0.5)                        # what comes at once may still be the old worker's
            async with to(edge, "/echo?new") as new:
                for ws in (old, new):
                    await ws.send("b")
                    assert await ws.recv() == "b"
                with pytest.raises(ConnectionClosedError):
                    await old.recv()
                assert time.monotonic() - reloaded < 6
                await new.send("c")
                assert await new.recv() == "c"

    run(talk())
    assert edge.wait_request(path="/echo?old")["error"] == "worker stopped"


# ---- what is no WebSocket

def test_a_refused_handshake(edge):
    async def talk():
        async with to(edge, "/no"):
            pass

    with pytest.raises(InvalidStatus) as caught:
        run(talk())
    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"not here\n"


def test_switched_off_for_a_route(edge, scripted):
    def plain(connection, request):
        assert request.get("upgrade") is None
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        return True

    scripted.on("/off/x", plain)
    with Client(edge) as client:
        for _ in range(2):
            assert client.get("/off/x", *UPGRADE).body == b"plain"


def test_a_switch_that_did_not_happen_opens_no_way_in(edge, scripted):
    """A backend that answers 426 (as to a Sec-WebSocket-Version of 777) still reads HTTP. A proxy that had switched
    would pass on what follows unseen."""
    def refuse(connection, request):
        connection.send(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")
        return True

    scripted.on("/s/refuse", refuse)
    scripted.on("/off/internal", lambda c, r: pytest.fail("reached"))
    with Client(edge) as client:
        versioned = [f for f in UPGRADE if "Version" not in f]
        assert client.get("/s/refuse", *versioned, "Sec-WebSocket-Version: 777").status == 426
        assert client.get("/nowhere/../off/x\0").status == 400     # read by the edge, and by nobody else


def test_a_101_of_anything_else_opens_no_way_in(edge, scripted):
    """A backend that can be brought to answer 101 (by fetching a page of the client's choosing, say)."""
    got = []

    def lie(connection, request):
        connection.send(b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        got.append(connection.wait_closed())

    scripted.on("/s/lie", lie)
    with Client(edge) as client:
        assert client.get("/s/lie", *UPGRADE).status == 502
    wait_until(lambda: got, 20, "the backend's connection to be closed")
    edge.wait_error("switched to another protocol than was asked for")


def test_h2c_does_not_pass(edge, scripted):
    seen = []

    def plain(connection, request):
        seen.append(request)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    scripted.on("/s/h2c", plain)
    with Client(edge) as client:
        for connection in ("Upgrade, HTTP2-Settings", "Upgrade"):
            fields = ["Upgrade: h2c", f"Connection: {connection}", "HTTP2-Settings: AAMAAABkAAQAAP__"]
            assert client.get("/s/h2c", *fields).status == 200
    assert all(request.get("upgrade") is None for request in seen)


# ---- another protocol, and half-closes

def test_half_closes_of_a_raw_protocol(edge, scripted):
    """Each direction ends by itself: close_notify on one side of the edge, FIN on the other."""
    def total(connection, request):
        connection.send(b"HTTP/1.1 101 Go\r\nUpgrade: raw/1\r\nConnection: upgrade\r\n\r\n")
        got = len(connection.received)
        while data := connection.sock.recv(65536):
            got += len(data)
        connection.send(b"%d" % got)
        connection.sock.shutdown(socket.SHUT_WR)

    scripted.on("/s/raw", total)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = edge.tls_context().wrap_bio(incoming, outgoing, server_hostname="edge.test")
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as tcp:
        def go(step, *what):
            while True:
                try:
                    return step(*what)
                except ssl.SSLWantReadError:
                    tcp.sendall(outgoing.read())
                    data = tcp.recv(65536)
                    if not data:
                        incoming.write_eof()
                    incoming.write(data)

        go(tls.do_handshake)
        tls.write(b"GET /s/raw HTTP/1.1\r\nHost: edge.test\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")
        assert go(tls.read, 65536).startswith(b"HTTP/1.1 101 ")
        for _ in range(64):
            tls.write(bytes(16384))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        assert go(tls.read, 100) == b"1048576"
        with pytest.raises(ssl.SSLZeroReturnError):
            go(tls.read, 1)


# ---- HTTP/2

class Stream:
    """A WebSocket in a stream, its frames by the `websockets` library."""

    def __init__(self, peer: H2Peer, path: str, *fields: tuple[str, str]) -> None:
        self.peer = peer
        self.id = peer.stream()
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "edge.test"),
                (":path", path), ("sec-websocket-version", "13"), *fields]
        peer.send(peer.head(self.id, head, end=False))
        self.response = peer.responses[self.id]
        peer.until(lambda: self.response.fields)
        self.protocol = ClientProtocol(parse_uri("ws://edge.test/"), state=OPEN, max_size=None)

    def flush(self, *, end: bool = False) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.peer.upload(self.id, data, end=False)
        if end:
            self.peer.send(frame(DATA, END_STREAM, self.id))

    def receive(self):
        """The next event: a frame."""
        while True:
            events = self.protocol.events_received()
            if events:
                return events[0]
            if self.response.body:
                self.protocol.receive_data(bytes(self.response.body))
                self.response.body.clear()
                continue
            assert not self.response.ended
            assert self.response.reset is None
            self.peer.step()


@contextlib.contextmanager
def h2(edge):
    context = edge.tls_context()
    context.set_alpn_protocols(["h2"])
    with Client(edge, context=context) as client:
        yield H2Peer(client.send, lambda: client.sock.recv(65536))


def test_websockets_in_streams(edge, sockets):
    with h2(edge) as peer:
        peer.until(lambda: peer.settings)
        streams = [Stream(peer, f"/echo?h2-{n}", ("sec-websocket-protocol", "chat")) for n in range(5)]
        for stream in streams:
            assert stream.response.fields[":status"] == "200"
            assert stream.response.fields["sec-websocket-protocol"] == "chat"
        for size in (0, 1, 70_000, MIB):
            for stream in streams:
                stream.protocol.send_binary(message(size))
                stream.flush()
            for stream in streams:
                assert stream.receive().data == message(size)
        for stream in streams:
            stream.protocol.send_close(3007, "done")
            stream.flush()
            assert stream.receive().data[:2] == (3007).to_bytes(2, "big")
            peer.until(lambda stream=stream: stream.response.ended)
            peer.send(frame(DATA, END_STREAM, stream.id))
    for n in range(5):
        wait_until(lambda n=n: (f"/echo?h2-{n}", 3007) in sockets.ends, 20, "the code")
        record = edge.wait_request(path=f"/echo?h2-{n}")
        assert (record["status"], record["alpn"], record["ended_by"]) == (200, "h2", "upstream")
        assert "error" not in record


def test_a_refused_handshake_in_a_stream(edge):
    with h2(edge) as peer:
        stream = Stream(peer, "/no")
        response = peer.response(stream.id)
        assert (response.status, bytes(response.body)) == (403, b"not here\n")


def test_a_client_that_resets_its_stream(edge, sockets):
    with h2(edge) as peer:
        gone, stays = Stream(peer, "/echo?reset"), Stream(peer, "/echo?stays")
        peer.send(frame(3, 0, gone.id, (8).to_bytes(4, "big")))
        wait_until(lambda: ("/echo?reset", 1006) in sockets.ends, 20, "the server to see it")
        stays.protocol.send_text(b"here")
        stays.flush()
        assert stays.receive().data == b"here"
