"""Limits of time, measured justly: who is slow but in time is served, and whose fault it is decides what is told.

What slow clients of every kind get is in tests/e2e/test_slow_clients.py.
"""

import socket
import threading
import time

import pytest
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router
from cext.proxy.timeouts import DEFAULTS, NAMES

from tests.cext.proxy.harness import Backend, Client, H2Client, echo, get, post, reply, serving
from tests.h2_peer import DATA, NO_ERROR, frame


def late(client, edge, least, most=1.5):
    """The error of the last request, once the server has ended the connection between these times."""
    began = time.monotonic()
    client.sock.settimeout(5)
    try:
        while client.sock.recv(65536):
            pass
    except OSError:
        pass
    assert least <= time.monotonic() - began <= most
    edge.stop()
    return edge.log()[-1]["error"]


# ---- which limit holds

def test_all_have_a_default():
    assert set(DEFAULTS) == set(NAMES)
    settings = ListenerSettings(None, Router([]), timeouts={"total": 7})
    assert settings.timeouts == DEFAULTS | {"total": 7}


def test_a_route_leaves_the_others_to_its_listener():
    group = UpstreamGroup("a", [("tcp", "127.0.0.1", 1)])
    unset = dict.fromkeys(NAMES, -1)
    assert Route(group).timeouts == unset
    assert Route(group, timeouts={"total": 0, "header": 5}).timeouts == unset | {"total": 0, "header": 5}


def by_route(group):
    return [
        Route(group),
        Route(group, path="/never", timeouts={"first_byte": 0, "keepalive": 0}),
        Route(group, path="/soon", timeouts={"first_byte": 100, "keepalive": 150}),
    ]


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_a_route_overrides_its_listener(protocol):
    def script(conn):
        while True:
            conn.request()
            time.sleep(0.4)
            conn.send(reply())

    with serving(script, routes=by_route, listener={"first_byte_ms": 200}) as edge, protocol(edge) as client:
        for path, status, least in (("/", 504, 0.2), ("/never", 200, 0.4), ("/soon", 504, 0.1)):
            began = time.monotonic()
            assert client.ask(get(path) if protocol is Client else path).status == status
            assert least <= time.monotonic() - began < least + 0.19


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_the_last_route_says_how_long_a_connection_is_kept(protocol):
    with serving(echo, routes=by_route, listener={"keepalive_ms": 250}) as edge, protocol(edge) as client:
        ask = (lambda path: client.ask(get(path))) if protocol is Client else client.ask
        for path in ("/", "/never"):
            assert ask(path).status == 200
        time.sleep(0.6)
        assert ask("/soon").status == 200
        began = time.monotonic()
        assert client.ended() if protocol is Client else client.end() == (5, NO_ERROR)
        assert 0.14 <= time.monotonic() - began < 1


# ---- rates

def dribble(client, data, pause):
    for i in range(len(data)):
        client.send(data[i:i + 1])
        time.sleep(pause)


RATE = {"timeouts": {"body_rate": 100, "rate_grace": 200}}


def test_a_body_at_its_rate():
    with serving(echo, **RATE) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 50", method="POST"))
        for _ in range(10):
            client.send(b"12345")
            time.sleep(0.04)
        assert client.response().body == b"POST / " + b"12345" * 10


def test_a_body_below_its_rate():
    with serving(echo, **RATE) as edge, Client(edge) as client:
        began = time.monotonic()
        client.send(get("/", "Content-Length: 50", method="POST"))
        for _ in range(50):
            client.send(b"1")
            time.sleep(0.04)
            if time.monotonic() - began > 0.35:
                break
        assert client.response().status == 408
        assert client.ended()
        edge.stop()
        assert edge.log()[-1]["error"] == "timeout: min_rate"


def test_a_fast_start_is_to_its_credit():
    """The rate is an average: 100 bytes are good for a second of waiting, and no more."""
    with serving(echo, **RATE) as edge:
        with Client(edge) as client:
            client.send(get("/", "Content-Length: 101", method="POST") + b"x" * 100)
            time.sleep(0.6)
            client.send(b"x")
            assert client.response().status == 200
        with Client(edge) as client:
            client.send(get("/", "Content-Length: 101", method="POST") + b"x" * 100)
            assert late(client, edge, 0.8, 2.5) == "timeout: min_rate"


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_time_in_which_the_backend_takes_nothing_is_not_the_clients(protocol):
    """A megabyte is sent as soon as there is room for it: that this takes the backend half a second is no slowness."""
    def script(conn):
        conn.line()
        time.sleep(0.6)
        conn.buffer = b"POST / HTTP/1.1\r\n" + conn.buffer
        body = conn.request().body
        conn.send(reply(b"%d" % len(body)))

    size = 12_000_000
    limits = {"body_rate": 20_000_000, "rate_grace": 250, "body_idle": 200}
    with serving(Backend(script, receive_buffer=4096), timeouts=limits) as edge, protocol(edge) as client:
        if protocol is Client:
            client.send(post(b"x" * size))
            answer = client.response()
        else:
            stream = client.post(end=False)
            client.upload(stream, bytes(size))
            answer = client.response(stream)
        assert (answer.status, bytes(answer.body)) == (200, b"%d" % size)


def test_a_window_that_others_keep_shut_is_not_the_clients():
    """What a backend does not take of one stream fills the connection's window: others cannot send."""
    def script(conn):
        conn.line()
        release.wait(8)
        conn.buffer = b"POST / HTTP/1.1\r\n" + conn.buffer
        conn.send(reply(b"%d" % len(conn.request().body)))

    release = threading.Event()
    windows = {"h2_stream_window": 1 << 20, "h2_connection_window": 65536}
    with (
        serving(Backend(script, receive_buffer=4096), body_idle_ms=200, response_idle_ms=0, listener=windows) as edge,
        H2Client(edge) as client,
    ):
        client.until(lambda: client.settings)
        first = client.post(end=False)
        client.sock.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                while min(client.room(0), client.room(first)) < 1000:
                    client.step()
                client.upload(first, b"x" * 1000, end=False)
                sent += 1000
        second = client.post(end=False)
        with pytest.raises(TimeoutError):
            client.until(lambda: client.responses[second].fields)
        time.sleep(0.4)
        release.set()
        client.sock.settimeout(8)
        client.upload(second, b"yy")
        client.upload(first, b"x")
        assert client.response(second).body == b"2"
        assert client.response(first).body == b"%d" % (sent + 1)


def test_http2_content_below_its_rate():
    """The request is ended, its connection goes on."""
    with serving(echo, **RATE) as edge, H2Client(edge) as client:
        stream = client.post(end=False)
        client.sock.settimeout(0.04)
        began = time.monotonic()
        while client.responses[stream].reset is None and time.monotonic() - began < 3:
            client.send(frame(DATA, 0, stream, b"x"))
            try:
                client.step()
            except TimeoutError:
                continue
        assert (client.responses[stream].status, client.responses[stream].reset) == (408, 0)
        assert 0.2 <= time.monotonic() - began < 1.5
        client.sock.settimeout(5)
        assert client.ask("/").status == 200


# ---- what a client takes

def endless(conn):
    conn.request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    while True:
        conn.send(b"x" * 65536)


def read_slowly(client, seconds, size, pause):
    """Whether the connection lasts that long, read at size/pause bytes a second."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            client.sock.recv(size)
            time.sleep(pause)
    except OSError:
        return False
    return True


def test_a_slow_reader_that_reads_is_no_dead_one():
    """Much is in the kernel: it has room for more only when a third of that has gone, long after write_idle."""
    with serving(endless, write_idle_ms=300, send_buffer=4 << 20) as edge, Client(edge, receive_buffer=8192) as client:
        client.send(get())
        assert read_slowly(client, 1.5, 4096, 0.02)


def test_a_slow_reader_below_its_rate():
    limits = {"write_rate": 2_000_000, "rate_grace": 300, "write_idle": 0}
    with serving(endless, timeouts=limits, send_buffer=65536) as edge, Client(edge, receive_buffer=8192) as client:
        client.send(get())
        assert not read_slowly(client, 3, 4096, 0.02)
        edge.until_idle()
        edge.stop()
        assert edge.log()[-1]["error"] == "timeout: write_min_rate"


def test_a_reader_above_its_rate():
    limits = {"write_rate": 20_000, "rate_grace": 300, "write_idle": 0}
    with serving(endless, timeouts=limits, send_buffer=65536) as edge, Client(edge, receive_buffer=8192) as client:
        client.send(get())
        assert read_slowly(client, 1.2, 4096, 0.02)


def test_streams_that_share_a_slow_link_share_the_rate():
    """What is too slow for one of them is not for all together: the connection takes what it must."""
    limits = {"write_rate": 100_000, "rate_grace": 300, "write_idle": 0}
    with serving(endless, timeouts=limits) as edge, H2Client(edge, hold=True, initial_window_size=1 << 30) as client:
        streams = [client.get() for _ in range(8)]
        end = time.monotonic() + 1.2
        client.sock.settimeout(0.02)
        while time.monotonic() < end:
            client.send(frame(8, 0, 0, (4000).to_bytes(4, "big")))        # WINDOW_UPDATE of the connection
            try:
                while True:
                    client.step()
            except TimeoutError:
                pass
        assert [client.responses[s].reset for s in streams] == [None] * 8


def test_a_backend_that_takes_little_at_a_time():
    """It takes less than what waits before it counts as drained, but it takes some."""
    def script(conn):
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(30):
            conn.buffer += conn.sock.recv(8192)
            time.sleep(0.05)
        conn.request()
        conn.send(reply())

    backend = Backend(script, receive_buffer=4096)
    with serving(backend, response_idle_ms=300) as edge, Client(edge) as client:
        client.send(post(b"x" * 6_000_000))
        assert client.response().status == 200


# ---- the answer

def test_total_while_the_client_is_waited_for():
    with serving(echo, total_ms=150) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 4", method="POST") + b"x")
        assert client.response().status == 408
        assert edge.counters()["upstream_failures"] == 0
        assert late(client, edge, 0) == "timeout: total"


def test_total_while_the_backend_is_waited_for():
    with serving(lambda conn: conn.rest(), total_ms=150) as edge, Client(edge) as client:
        assert client.ask(post(b"x")).status == 504
        assert edge.counters()["upstream_failures"] == 1
