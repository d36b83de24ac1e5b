"""Tunnels in any order of events: what one end sends the other gets, whole and in order, whatever else happens."""

import contextlib
import queue
import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import H2Client, serving, until
from tests.cext.proxy.test_h2_tunnel import connect
from tests.cext.proxy.test_h2_tunnel import opened as opened_stream
from tests.cext.proxy.test_tunnel import RAW, Peer, raw, switch
from tests.h2_peer import DATA, END_STREAM, frame, reset

ENDS = ("client", "server")
SIZES = st.sampled_from([1, 2, 1369, 16_384, 16_385, 60_000])
SEND = st.tuples(st.sampled_from(["send"]), st.sampled_from(ENDS), SIZES)
END = st.tuples(st.sampled_from(["end"]), st.sampled_from(ENDS), st.just(0))
BREAK = st.tuples(st.sampled_from(["break"]), st.sampled_from(ENDS), st.just(0))
WAYS = st.tuples(st.lists(st.one_of(SEND, SEND, SEND, END), max_size=10), st.one_of(st.none(), BREAK))


class Server:
    """The backend's end, for the test to use."""

    def __init__(self, conn):
        self.conn = conn

    def send(self, data):
        self.conn.send(data)

    def end(self):
        self.conn.sock.shutdown(socket.SHUT_WR)

    def break_off(self):
        self.conn.reset()

    def exactly(self, n):
        return self.conn.exactly(n)

    def ended(self):
        return self.conn.buffer + self.conn.sock.recv(1) == b""

    def broken(self):
        with contextlib.suppress(ConnectionResetError):
            while self.conn.sock.recv(65536):
                pass
            return False
        return True


class H1(Peer):
    """The client's end on a connection of HTTP/1.1."""

    def __init__(self, edge):
        super().__init__(edge)
        assert self.ask(raw()).status == 101

    def break_off(self):
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.tcp.close()

    def broken(self):
        with contextlib.suppress(EOFError, ssl.SSLError, ConnectionError):
            while self.recv(65536):
                pass
            return False
        return True


class H2:
    """The client's end in a stream."""

    def __init__(self, edge):
        self.peer = H2Client(edge)
        self.id = connect(self.peer, protocol="raw/1")
        self.response = opened_stream(self.peer, self.id)
        assert self.response.status == 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.client.close()

    def send(self, data):
        self.peer.upload(self.id, data, end=False)

    def end(self):
        self.peer.send(frame(DATA, END_STREAM, self.id))

    def break_off(self):
        self.peer.send(reset(self.id))

    def exactly(self, n):
        self.peer.until(lambda: len(self.response.body) >= n or self.response.ended or self.response.reset is not None)
        data = bytes(self.response.body[:n])
        del self.response.body[:n]
        return data

    def ended(self):
        self.peer.until(lambda: self.response.body or self.response.ended or self.response.reset is not None)
        return self.response.ended and not self.response.body and self.response.reset is None

    def broken(self):
        self.peer.until(lambda: self.response.ended or self.response.reset is not None)
        return self.response.reset is not None


@pytest.fixture(scope="module", params=[H1, H2])
def running(request):
    backends = queue.SimpleQueue()

    def script(conn):
        switch(conn)
        done = queue.SimpleQueue()
        backends.put((Server(conn), done))
        done.get(timeout=20)

    with serving(script, **RAW) as edge:
        yield edge, backends, request.param


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(way=WAYS)
def test_any_order(running, way):
    edge, backends, client_kind = running
    events, broken_by = way
    with client_kind(edge) as client:
        server, done = backends.get(timeout=8)
        ends = {"client": client, "server": server}
        sent, open_ends = {"client": b"", "server": b""}, set(ENDS)
        for n, (what, who, size) in enumerate(events):
            if who not in open_ends:
                continue
            if what == "send":
                data = bytes([n]) * size
                ends[who].send(data)
                sent[who] += data
            else:
                ends[who].end()
                open_ends.discard(who)
        for who, other in (("client", "server"), ("server", "client")):
            assert ends[other].exactly(len(sent[who])) == sent[who]
            if who not in open_ends:
                assert ends[other].ended()
        if broken_by is not None and open_ends == set(ENDS):
            who = broken_by[1]
            ends[who].break_off()
            assert ends["server" if who == "client" else "client"].broken()
        else:
            for who in open_ends:
                ends[who].end()
                assert ends["server" if who == "client" else "client"].ended()
        until(lambda: edge.counters()["tunnels_open"] == 0)
        done.put(None)
