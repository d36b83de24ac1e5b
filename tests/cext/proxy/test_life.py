"""A connection's phases and their ends: timeouts, draining, lack of descriptors, aborts on every side."""

import contextlib
import gc
import os
import random
import resource
import select
import socket
import ssl
import threading
import time

import pytest
from cext.base.buffer import allocation_counters

from tests.cext.proxy.harness import CONTEXT, BytesClient, Client, H2Client, echo, get, post, reply, serving, until


class Clock:
    def __enter__(self):
        self.started = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.started


def tcp(edge):
    sock = socket.create_connection(("127.0.0.1", edge.port), timeout=8)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def trickle(sock, data, pause=0.02):
    """Sends data byte by byte (or piece by piece) for as long as the other side takes it."""
    try:
        for b in data:
            sock.sendall(bytes([b]) if isinstance(b, int) else b)
            time.sleep(pause)
    except OSError:
        return


# ---- each phase has its limit

@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00" + b"\x01" * 400])
def test_handshake(sent):
    with serving(echo, listener={"handshake_ms": 150}) as edge:
        with Clock() as clock, tcp(edge) as sock:
            trickle(sock, sent)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) in (b"", b"\x15\x03\x03\x00\x02\x02\x2f")
        assert clock.seconds < 1
        edge.until_idle()
        counters = edge.counters()
        assert counters["handshake_failures"] == 1
        assert any("handshake failed" in text for _, text in edge.errors)


@pytest.mark.parametrize(("sent", "status"), [
    (b"", None), ([b"\r\n"] * 15, None), (b"\r\n" * 8, 408), (b"G", 408), (get()[:15], 408)])
@pytest.mark.parametrize("later", [False, True])
def test_header(sent, status, later):
    """In a first request and in a later one; empty lines do not put it off."""
    with serving(echo, listener={"header_ms": 150, "keepalive_ms": 300}) as edge:
        client = Client(edge)
        if later:
            client.ask(get())
        with Clock() as clock:
            trickle(client.sock, sent)
            # A broken pipe: that of the trickle, which Python 3.13 tells once more.
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                if status:
                    assert client.response().status == status
                assert client.ended()
        assert 0.1 < clock.seconds < 1
        client.close()
        edge.until_idle()


def test_keepalive():
    with serving(echo, listener={"keepalive_ms": 150}) as edge, Client(edge) as client:
        client.ask(get())
        with Clock() as clock:
            assert client.ended()
        assert 0.1 < clock.seconds < 1
        assert edge.counters()["timeouts"] == 0


def test_keepalive_outlives_parking():
    with serving(echo, listener={"keepalive_ms": 900}) as edge, Client(edge) as client:
        for _ in range(2):
            assert client.ask(get()).status == 200
            time.sleep(0.6)                 # parked meanwhile
        client.ask(get())
        with Clock() as clock:
            assert client.ended()
        assert 0.8 < clock.seconds < 2


@pytest.mark.parametrize("sent", [b"", b"a", b"abc"])
def test_body_idle(sent):
    with serving(echo, body_idle_ms=120) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 4", method="POST") + sent)
        with Clock() as clock:
            assert client.response().status == 408
            assert client.ended()
        assert clock.seconds < 1


def test_a_body_that_moves_is_in_time():
    with serving(echo, body_idle_ms=150) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 20", method="POST"))
        trickle(client.sock, b"x" * 20)
        assert client.response().body == b"POST / " + b"x" * 20


@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_write_idle(size):
    def script(conn):
        while True:
            conn.request()
            conn.send(reply(b"x" * size))

    with serving(script, write_idle_ms=150, send_buffer=4096) as edge, Client(edge, receive_buffer=2048) as client:
        client.send(get() * (3_000_000 // size))
        with Clock() as clock:
            edge.until_idle()
        assert clock.seconds < 3
        assert edge.counters()["timeouts"] == 1
        edge.stop()
        assert size == 20_000 or edge.log()[-1]["error"] == "timeout: write_idle"


def test_none():
    """Without any timeout a connection waits in each phase."""
    never = {"handshake_ms": 0, "header_ms": 0, "keepalive_ms": 0}
    with serving(echo, listener=never, body_idle_ms=0, first_byte_ms=0, write_idle_ms=0, connect_ms=0) as edge:
        client = Client(edge)
        silent = tcp(edge)
        request = post(b"abc")
        for part in (request[:10], request[10:-2], request[-2:]):
            time.sleep(0.15)
            client.send(part)
        assert client.response().status == 200
        time.sleep(0.7)
        assert client.ask(get()).status == 200
        assert edge.counters()["connections_open"] == 2
        client.close()
        silent.close()
        edge.until_idle()


# ---- the end of a worker

def test_drain():
    def script(conn):
        while True:
            conn.request()
            gate.wait(8)
            conn.send(reply(b"done"))

    gate = threading.Event()
    with serving(script) as edge:
        under_way, idle, begun = Client(edge), Client(edge), Client(edge)
        under_way.send(get())
        until(lambda: edge.counters()["requests"] == 1)
        begun.send(get()[:20])
        time.sleep(0.05)
        edge.call(lambda: edge.plane.drain(8000))
        edge.call(lambda: edge.plane.drain(1))      # a second one changes nothing
        assert idle.ended()
        with socket.socket() as late:
            late.settimeout(0.3)
            late.connect(("127.0.0.1", edge.port))     # waits in the queue for whoever comes next
            with pytest.raises(TimeoutError):
                late.recv(1)
        begun.send(get()[20:])
        gate.set()
        for client in (under_way, begun):
            response = client.response()
            assert response.body == b"done"
            assert response.fields["connection"] == "close"
            assert client.ended()
        assert edge.ended.wait(2)
        for client in (under_way, idle, begun):
            client.close()


def test_many_are_drained_in_parts():
    """A turn of the loop tells 256 of them: whoever is served meanwhile does not wait for all."""
    with serving(echo) as edge, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client(edge)) for _ in range(300)]
        poll = select.poll()
        for client in clients:
            client.ask()
            poll.register(client.sock, select.POLLIN)
        assert poll.poll(0) == []
        told = edge.call(lambda: (edge.plane.drain(8000), len(poll.poll(0)))[1])
        assert told == 256
        until(lambda: len(poll.poll(0)) == len(clients))
        assert edge.ended.wait(8)


def test_drain_has_a_deadline():
    with serving(lambda conn: conn.rest()) as edge, Client(edge) as client:
        client.send(get())
        until(lambda: edge.counters()["requests"] == 1)
        with Clock() as clock:
            edge.call(lambda: edge.plane.drain(200))
            assert edge.ended.wait(3)
        assert clock.seconds < 1
        with pytest.raises(ssl.SSLError):
            client.response()
        assert edge.log()[-1]["error"] == "worker stopped"


def test_stop_cuts():
    with serving(echo) as edge, Client(edge) as client:
        client.ask(get())
        edge.stop()
        with pytest.raises(ssl.SSLError):
            client.ended()


# ---- lack of descriptors

def test_accepting_pauses_without_descriptors():
    with serving(echo) as edge:
        with Client(edge) as client:
            client.ask(get())
        edge.until_idle()
        late = [socket.socket() for _ in range(3)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(late[0].fileno()))
            for sock in late:
                sock.settimeout(8)
                sock.connect(("127.0.0.1", edge.port))
            until(lambda: edge.counters()["accept_pauses"] == 1)
            time.sleep(0.5)
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for sock in late:
            with CONTEXT.wrap_socket(sock, server_hostname="example.com") as tls:
                tls.sendall(get())
                assert tls.recv(100)
        assert edge.counters()["accept_pauses"] == 1
        assert [level for level, text in edge.errors if "accept: Too many open files" in text] == ["error"]


# ---- any side may do anything

def misbehaving(conn):
    """Answers in good order mostly; else cuts, resets, stalls or lies at a random moment."""
    r = random.Random(conn.number)
    while True:
        act = r.randrange(12)
        if act == 0:
            return None
        if act == 1:
            return conn.reset()
        request = conn.head() if act == 2 else conn.request()
        body = b"z" * r.choice((0, 1, 500, 20_000, 400_000))
        data = reply(b"" if request.start.startswith("HEAD") else body)
        if act == 3:
            data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + b"0\r\nX-T: y\r\n\r\n"
        if act == 4:
            data = data[:r.randrange(len(data))]
        if act == 5:
            data += b"more than announced"
        if act == 6:
            data = b"HTTP/1.1 100 Continue\r\n\r\n" + data
        if act == 7:
            time.sleep(r.random() * 0.03)
        conn.send(data)
        if act in (2, 4, 8):
            return conn.reset() if r.random() < 0.5 else None


def misbehave(edge, seed):
    r = random.Random(seed)
    if r.random() < 0.1:
        with tcp(edge) as sock:
            sock.sendall(r.randbytes(r.randrange(1, 600)))
        return
    client = BytesClient(edge)
    client.tcp.settimeout(0.25)
    stream = b"".join(r.choice((
        get(f"/{n}"), get("/", method="HEAD"),
        post(b"b" * r.choice((0, 10, 30_000)), method=r.choice(("POST", "PUT"))),
        get("/", "Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        get("/", "Connection: close") if r.random() < 0.2 else get(),
        b"nonsense\r\n\r\n" if r.random() < 0.1 else get(),
    )) for n in range(r.randrange(1, 7)))
    if r.random() < 0.3:
        stream = stream[:r.randrange(1, len(stream))]
    cuts = sorted(r.sample(range(len(stream)), min(len(stream), r.randrange(4))))
    data = client.records(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if b > a))
    if r.random() < 0.3:
        data += client.close_notify()
    if r.random() < 0.1:
        data = data[:-20] + r.randbytes(20)
    with contextlib.suppress(OSError, EOFError, ssl.SSLError):
        while data:
            n = r.randrange(1, len(data) + 1)
            client.tcp.sendall(data[:n])
            data = data[n:]
            if r.random() < 0.4:
                time.sleep(r.random() * 0.01)
        act = r.randrange(5)
        if act == 0:
            client.tcp.shutdown(socket.SHUT_WR)
        if act <= 2:
            for _ in range(r.randrange(40)):
                client.recv(r.randrange(1, 65536))
        if act == 3:
            client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


@pytest.mark.parametrize("seed", range(6))
def test_any_interleaving_gives_everything_back(seed):
    with serving(misbehaving, misbehaving, send_buffer=16384, pool={"max_idle": 3}) as edge:
        def work(n):
            for k in range(12):
                with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                    misbehave(edge, seed * 10_000 + n * 100 + k)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        edge.until_idle()
        assert edge.chunks_in_use() == 0
        with Client(edge) as client:
            client.send(get("/alive", "Connection: close"))
            with contextlib.suppress(OSError, EOFError):
                client.response()
        counters = edge.counters()
        assert counters["connections"] > 90
        assert counters["requests"] > 80


def test_a_worker_that_stops_gives_back_what_waits_in_streams():
    """At once: not when a collector finds what held it."""
    def script(conn):
        conn.request()
        conn.send(reply(bytes(1 << 20)))
        conn.rest()

    with serving(script) as edge, H2Client(edge, initial_window_size=0) as client:
        gc.disable()
        try:
            for _ in range(8):
                client.get("/")
            until(lambda: edge.chunks_in_use() > 40)
            edge.stop()
            assert allocation_counters()[0] == edge.chunks_before
        finally:
            gc.enable()
