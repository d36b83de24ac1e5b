"""What is idle gives way when descriptors or memory run short: clients before upstreams, the oldest first."""

import contextlib
import os
import random
import resource
import socket
import time

import pytest

from tests.cext.proxy.harness import CONTEXT, Client, H2Client, echo, get, post, reply, serving, until
from tests.h2_peer import HEADERS, NO_ERROR, H2Origin


@contextlib.contextmanager
def few_files(left):
    """All descriptors of this process below the highest are taken, and `left` more may be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(2))
        now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        resource.setrlimit(resource.RLIMIT_NOFILE, (now + left, limits[1]))
        yield now + left
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)


def told(edge, part):
    return [text for level, text in edge.errors if part in text and level == "warning"]


def connected(sock, edge):
    """A client on a socket that is there already."""
    sock.settimeout(30)
    sock.connect(("127.0.0.1", edge.port))
    return CONTEXT.wrap_socket(sock, server_hostname="example.com", suppress_ragged_eofs=False)


def test_accepting_without_descriptors():
    """EMFILE: idle clients make room, in order; the spell is told once, and accepting does not pause."""
    with serving(echo) as edge:
        idle = [Client(edge) for _ in range(8)]
        order = random.Random(5).sample(idle, 8)
        for client in order:
            client.ask(get())
            time.sleep(0.02)
        until(lambda: edge.counters()["connections_idle"] == 8)
        late = [socket.socket() for _ in range(3)]
        with few_files(0):
            tls = []
            for sock in late:
                tls.append(connected(sock, edge))
                tls[-1].sendall(get())
                assert tls[-1].recv(100)
        counters = edge.counters()
        closed = counters["idle_closed"]
        assert 3 <= closed <= 6             # twice as many if the worker has seen the new limit by then
        assert counters["accept_pauses"] == 0
        assert all(client.ended() for client in order[:closed])
        assert all(client.ask(get()).status == 200 for client in order[closed:])
        assert len(told(edge, "descriptors run short")) == 1
        for sock in (*idle, *tls):
            sock.close()


def test_idle_connections_of_http2_give_way_with_a_goaway():
    with serving(echo) as edge, H2Client(edge) as idle:
        idle.ask()
        until(lambda: edge.counters()["connections_idle"] == 1)  # which it is a moment after its response has come
        late = socket.socket()
        with few_files(0), connected(late, edge) as tls:
            tls.sendall(get())
            assert tls.recv(100)
            assert idle.end() == (1, NO_ERROR)


def test_then_upstreams():
    """No client is idle: the connection that is kept to the upstream goes."""
    with serving(echo) as edge:
        with Client(edge) as client:
            client.ask(get())
        edge.until_idle()
        assert edge.group.idle_connections() == 1
        late = socket.socket()
        with few_files(0), connected(late, edge):
            until(lambda: edge.counters()["upstream_idle_closed"] == 1)
        assert edge.group.idle_connections() == 0


@pytest.mark.parametrize("busy", [False, True])
def test_connections_of_http2_to_upstreams(busy):
    """One that is idle gives way; not one that serves."""
    gate = []

    def script(conn):
        origin = H2Origin(conn.send, lambda: conn.sock.recv(65536))
        while True:
            f = origin.step()
            if f.type == HEADERS:
                if origin.responses[f.stream].fields[":path"] == "/wait":
                    until(lambda: gate)
                origin.respond(f.stream)

    with serving(script, pool={"protocol": "h2c"}) as edge:
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        edge.until_idle()
        assert edge.group.idle_connections() == 1
        late = socket.socket()
        with contextlib.ExitStack() as stack:
            if busy:
                waits = stack.enter_context(Client(edge))
                waits.send(get("/wait"))
                until(lambda: edge.counters()["connections_active"] == 1)
            with few_files(0):
                late.settimeout(8)
                late.connect(("127.0.0.1", edge.port))
                late.sendall(b"\x16")
                until(lambda: edge.counters()["accept_pauses" if busy else "upstream_idle_closed"] == 1)
            assert edge.group.idle_connections() == (1 if busy else 0)
            gate.append(True)
            assert not busy or waits.response().status == 200
        late.close()


def test_memory():
    """Over the bound, idle ones are closed second by second; those that are busy stay."""
    gate = []

    def script(conn):
        while True:
            if conn.request().start.startswith("GET /wait"):
                until(lambda: gate)
            conn.send(reply())

    with serving(script, plane={"memory_limit": 1 << 20}) as edge, contextlib.ExitStack() as stack:
        busy = stack.enter_context(Client(edge))
        busy.send(get("/wait"))
        idle = [stack.enter_context(Client(edge)) for _ in range(70)]
        for client in idle:
            client.ask(get())
        until(lambda: edge.counters()["idle_closed"] == 70)
        assert all(client.ended() for client in idle)
        until(lambda: edge.counters()["upstream_idle_closed"] >= 1)
        gate.append(True)
        assert busy.response().status == 200
        assert len(told(edge, "memory runs short")) == 1


@pytest.mark.parametrize("limit", [0, 1 << 40])
def test_enough_memory(limit):
    with serving(echo, plane={"memory_limit": limit}) as edge, Client(edge) as client:
        client.ask(get())
        time.sleep(1.2)
        assert client.ask(post(b"x")).status == 200
        assert edge.counters()["idle_closed"] == 0
        assert told(edge, "memory") == []
