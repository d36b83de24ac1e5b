"""WebSockets in streams of HTTP/2 (RFC 8441), to a backend of HTTP/1.1."""

import contextlib
import random
import socket
import threading
import time

import pytest

from tests.cext.proxy.harness import Backend, H2Client, echo, reply, serving, until
from tests.cext.proxy.test_tunnel import ACCEPT, KEY, RAW, accept_of, echoing, switch, switching
from tests.h2_peer import CANCEL, DATA, ENABLE_CONNECT_PROTOCOL, END_STREAM, NO_ERROR, frame, reset, window


def answer_to(request):
    return switching(f"Sec-WebSocket-Accept: {accept_of(request.fields['sec-websocket-key'])}", protocol="websocket")


def connect(client, path="/chat", *, protocol="websocket", fields=(), end=False, drop=()):
    stream = client.stream()
    head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", "example.com"),
            (":path", path), *fields]
    client.send(client.head(stream, [f for f in head if f[0] not in drop], end=end))
    return stream


def opened(client, stream):
    response = client.responses[stream]
    client.until(lambda: response.fields is not None or response.reset is not None)
    return response


def got(client, stream, n):
    response = client.responses[stream]
    client.until(lambda: len(response.body) >= n or response.ended or response.reset is not None)
    taken = bytes(response.body[:n])
    del response.body[:n]
    return taken


def test_a_websocket():
    seen = []

    def script(conn):
        seen.append(switch(conn))
        conn.send(b"hello")
        assert conn.exactly(4) == b"back"

    with serving(script) as edge, H2Client(edge) as client:
        client.until(lambda: client.settings is not None)
        assert client.settings[ENABLE_CONNECT_PROTOCOL] == 1
        stream = connect(client, fields=[
            ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("cookie", "a=1"), ("cookie", "b=2"),
            ("sec-websocket-key", KEY)])
        response = opened(client, stream)
        assert response.status == 200
        assert not response.fields.keys() & {"upgrade", "connection", "sec-websocket-accept", "content-length"}
        assert got(client, stream, 5) == b"hello"
        counters = edge.counters()
        assert (counters["tunnels_open"], counters["connections_active"]) == (1, 1)
        client.send(frame(DATA, 0, stream, b"back"))
        client.until(lambda: response.ended)
        client.send(frame(DATA, END_STREAM, stream))
        until(lambda: edge.counters()["tunnels_open"] == 0)
    entry = edge.log()[-1]
    assert [entry[key] for key in ("method", "status", "upgrade", "ended_by")] == ["GET", 200, "websocket", "upstream"]
    assert "error" not in entry
    sent = seen[0]
    assert sent.start == "GET /chat HTTP/1.1"
    assert [sent.fields[key] for key in ("upgrade", "connection", "host")] == ["websocket", "upgrade", "example.com"]
    assert (sent.fields["sec-websocket-protocol"], sent.fields["cookie"]) == ("chat", "a=1; b=2")
    assert sent.fields["sec-websocket-key"] != KEY              # its own, and a new one each time
    assert "transfer-encoding" not in sent.fields
    assert "content-length" not in sent.fields


def test_keys_are_new_each_time():
    keys = []

    def script(conn):
        keys.append(switch(conn).fields["sec-websocket-key"])

    with serving(script) as edge, H2Client(edge) as client:
        for _ in range(4):
            assert opened(client, connect(client)).status == 200
    assert len(set(keys)) == 4
    assert all(len(key) == 24 and key.endswith("==") for key in keys)


def test_many_streams_of_one_connection():
    with serving(echoing) as edge, H2Client(edge) as client:
        streams = [connect(client, f"/{n}") for n in range(30)]
        for stream in streams:
            assert opened(client, stream).status == 200
            client.send(frame(DATA, 0, stream, b"%06d" % stream))
        for stream in streams:
            assert got(client, stream, 6) == b"%06d" % stream
        assert edge.counters()["tunnels_open"] == 30
        for stream in streams:
            client.send(frame(DATA, END_STREAM, stream))
        for stream in streams:
            assert client.response(stream).reset is None
        until(lambda: edge.counters()["tunnels_open"] == 0)


def test_requests_and_tunnels_share_a_connection():
    def script(conn):
        request = conn.request()
        if "upgrade" not in request.fields:
            conn.send(reply(b"page"))
            return
        conn.send(answer_to(request))
        conn.send(conn.exactly(2))

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        assert opened(client, stream).status == 200
        assert client.ask("/page").body == b"page"
        client.send(frame(DATA, 0, stream, b"ab"))
        assert got(client, stream, 2) == b"ab"


# ---- what is no tunnel

@pytest.mark.parametrize("status", ["403 Forbidden", "426 Upgrade Required", "302 Found", "500 Oops"])
def test_a_refusal_is_passed_on(status):
    def script(conn):
        conn.request()
        conn.send(reply(b"no", status=status))
        conn.request()
        conn.send(reply(b"next"))

    with serving(script) as edge, H2Client(edge) as client:
        response = client.response(connect(client))
        assert (response.status, response.body) == (int(status[:3]), b"no")
        assert client.ask().body == b"next"
        assert edge.backends[0].accepted == 1


def test_a_2xx_that_is_no_switch():
    """To the client it would be a tunnel: what it sent would go to a backend that still reads HTTP."""
    got = []

    def script(conn):
        got.append(conn.request().fields["upgrade"])
        conn.send(reply(b"page"))
        got.append(conn.rest())

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        client.send(frame(DATA, 0, stream, b"GET /internal HTTP/1.1\r\nHost: x\r\n\r\n"))
        response = client.response(stream)
        assert response.status == 502
        until(lambda: len(got) == 2)
    assert got == ["websocket", b""]


@pytest.mark.parametrize("answer", [
    switching(protocol="websocket"),
    switching(f"Sec-WebSocket-Accept: {ACCEPT}", protocol="websocket"),         # of another key
    switching("Sec-WebSocket-Accept: ", protocol="raw/1"),
])
def test_a_101_that_was_not_asked_for(answer):
    def script(conn):
        conn.request()
        conn.send(answer)
        conn.rest()

    with serving(script) as edge, H2Client(edge) as client:
        assert client.response(connect(client)).status == 502
        assert edge.counters()["tunnels"] == 0


@pytest.mark.parametrize("protocol", ["h2c", "connect-udp", "raw/1"])
def test_another_protocol(protocol):
    with serving(echo) as edge, H2Client(edge) as client:
        response = client.response(connect(client, protocol=protocol))
        assert response.status == 501
        assert edge.backends[0].accepted == 0


def test_a_protocol_that_a_route_names():
    with serving(echoing, **RAW) as edge, H2Client(edge) as client:
        stream = connect(client, protocol="RAW/1")
        assert opened(client, stream).status == 200
        client.send(frame(DATA, 0, stream, b"abc"))
        assert got(client, stream, 3) == b"abc"


def test_a_plain_connect_is_refused():
    with serving(echo) as edge, H2Client(edge) as client:
        stream = client.stream()
        client.send(client.head(stream, [(":method", "CONNECT"), (":authority", "example.com:80")], end=False))
        assert client.response(stream).status == 405
        assert edge.backends[0].accepted == 0


def test_it_can_be_switched_off():
    with serving(echo, listener={"h2_connect_protocol": False}) as edge, H2Client(edge) as client:
        client.until(lambda: client.settings is not None)
        assert ENABLE_CONNECT_PROTOCOL not in client.settings
        assert client.response(connect(client)).reset is not None
        assert client.ask().status == 200
        assert edge.backends[0].accepted == 1


# ---- bytes

def test_what_comes_before_the_200_waits():
    go, early = threading.Event(), []

    def script(conn):
        request = conn.request()
        assert go.wait(8)
        assert conn.buffer == b""
        conn.send(answer_to(request))
        early.append(conn.rest())

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        client.send(frame(DATA, 0, stream, b"GET / HTTP/1.1\r\n"), frame(DATA, END_STREAM, stream, b"\r\n"))
        time.sleep(0.1)
        go.set()
        assert opened(client, stream).status == 200
        assert client.response(stream).ended
    assert early == [b"GET / HTTP/1.1\r\n\r\n"]


def test_a_large_exchange_both_ways():
    size = 3 << 20
    with serving(echoing) as edge, H2Client(edge) as client:
        stream = connect(client)
        assert opened(client, stream).status == 200
        data = bytes(range(256)) * (size // 256)
        client.upload(stream, data, end=True)
        response = client.response(stream)
        assert response.ended
        assert bytes(response.body) == data


def test_a_backend_that_does_not_read_holds_up_its_stream_alone():
    go = threading.Event()

    def script(conn):
        request = conn.request()
        if "upgrade" not in request.fields:
            conn.send(reply(b"page"))
            return
        conn.send(answer_to(request))
        assert go.wait(8)
        conn.send(b"%d" % len(conn.rest()))

    with serving(Backend(script, receive_buffer=65536)) as edge, H2Client(edge) as client:
        stream = connect(client)
        assert opened(client, stream).status == 200
        sent = 0
        end = time.monotonic() + 0.4
        client.sock.settimeout(0.1)
        while time.monotonic() < end:
            room = min(client.room(stream), client.room(0), 16384)
            if room > 0:
                client.send(frame(DATA, 0, stream, bytes(room)))
                client.windows[stream] = client.room(stream) - room
                client.windows[0] = client.room(0) - room
                sent += room
                end = time.monotonic() + 0.4
                continue
            with contextlib.suppress(TimeoutError):
                client.step()
        client.sock.settimeout(8)
        assert client.room(stream) <= 0
        assert client.room(0) > 0
        assert edge.chunks_in_use() <= 40
        assert client.ask("/page").body == b"page"
        go.set()
        client.send(frame(DATA, END_STREAM, stream))
        assert bytes(client.response(stream).body) == b"%d" % sent


def test_a_client_that_does_not_read_holds_up_the_backend():
    total, done = 8 << 20, threading.Event()

    def script(conn):
        switch(conn)
        conn.send(bytes(total))
        done.set()

    with serving(script) as edge, H2Client(edge, hold=True) as client:
        stream = connect(client)
        assert opened(client, stream).status == 200
        assert not done.wait(0.3)
        assert edge.chunks_in_use() <= 40
        client.hold = False
        client.send(window(0, 65535), window(stream, 65535))
        client.until(lambda: len(client.responses[stream].body) >= total)
        client.until(lambda: client.responses[stream].ended)


# ---- the ends

def test_the_client_ends_first_and_still_reads():
    def script(conn):
        switch(conn)
        assert conn.rest() == b"question"
        time.sleep(0.05)
        conn.send(b"answer")

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        opened(client, stream)
        client.send(frame(DATA, END_STREAM, stream, b"question"))
        response = client.response(stream)
        assert (bytes(response.body), response.reset) == (b"answer", None)
        until(lambda: edge.counters()["tunnels_open"] == 0)
    assert edge.log()[-1]["ended_by"] == "client"


def test_the_backend_ends_first_and_still_reads():
    rest = []

    def script(conn):
        switch(conn)
        conn.send(b"answer")
        conn.sock.shutdown(socket.SHUT_WR)
        rest.append(conn.rest())

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        response = client.response(stream)
        assert (bytes(response.body), response.reset) == (b"answer", None)
        time.sleep(0.05)
        client.send(frame(DATA, 0, stream, b"more "), frame(DATA, END_STREAM, stream, b"questions"))
        until(lambda: rest)
        until(lambda: edge.counters()["tunnels_open"] == 0)
    assert rest == [b"more questions"]
    assert edge.log()[-1]["ended_by"] == "upstream"
    assert "error" not in edge.log()[-1]


def test_what_the_server_has_not_taken_outlives_the_stream():
    """Both ends have ended; the bytes that a slow backend still has to read are not lost."""
    go, rest = threading.Event(), []

    def script(conn):
        switch(conn)
        conn.sock.shutdown(socket.SHUT_WR)
        assert go.wait(8)
        rest.append(len(conn.rest()))

    with serving(Backend(script, receive_buffer=65536)) as edge, H2Client(edge) as client:
        stream = connect(client)
        assert client.response(stream).ended
        client.upload(stream, bytes(200_000), end=False)
        size = 200_000
        while client.room(stream) > 0:
            part = min(client.room(stream), 16384)
            client.send(frame(DATA, 0, stream, bytes(part)))
            client.windows[stream] = client.room(stream) - part
            size += part
        client.send(frame(DATA, END_STREAM, stream))
        time.sleep(0.1)
        go.set()
        until(lambda: rest)
        until(lambda: edge.counters()["tunnels_open"] == 0)
    assert rest == [size]


@pytest.mark.parametrize("ends", ["last", "first", "meanwhile"])
def test_what_a_request_holds_is_delivered_before_its_end(ends):
    """A slow backend, which still talks or has ended its side: more waits than its connection takes."""
    half, go, rest = threading.Event(), threading.Event(), []

    def script(conn):
        switch(conn)
        if ends == "first":
            conn.sock.shutdown(socket.SHUT_WR)
        elif ends == "meanwhile":
            assert half.wait(8)
            conn.sock.shutdown(socket.SHUT_WR)
        assert go.wait(8)
        rest.append(conn.rest())
        if ends == "last":
            conn.send(b"thanks")

    sent = bytearray()
    with serving(Backend(script, receive_buffer=4096), listener={"h2_stream_window": 1 << 20}) as edge, \
            H2Client(edge) as client:
        stream = connect(client)
        response = opened(client, stream)
        client.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while len(sent) < 8 << 20:
                room = min(client.room(stream), client.room(0), 16384)
                if room <= 0:
                    client.step()
                    continue
                part = random.randbytes(room)
                client.send(frame(DATA, 0, stream, part))
                client.windows[stream] = client.room(stream) - room
                client.windows[0] = client.room(0) - room
                sent += part
        client.sock.settimeout(8)
        assert client.room(stream) <= 0
        client.send(frame(DATA, END_STREAM, stream))
        time.sleep(0.05)
        half.set()
        if ends != "last":
            client.until(lambda: response.ended)
        time.sleep(0.05)
        go.set()
        until(lambda: rest)
        client.until(lambda: response.ended)
        assert (bytes(response.body), response.reset) == (b"thanks" if ends == "last" else b"", None)
        until(lambda: edge.counters()["tunnels_open"] == 0)
    assert rest == [sent]
    assert "error" not in edge.log()[-1]


@pytest.mark.parametrize("code", [NO_ERROR, CANCEL])
def test_a_client_that_gives_up_before_the_switch(code):
    """Even without an error: nothing has ended in good order before there is a tunnel."""
    go, ended = threading.Event(), threading.Event()

    def script(conn):
        if conn.number:
            echo(conn)
        request = conn.request()
        assert go.wait(8)
        with contextlib.suppress(OSError):
            conn.send(answer_to(request) + b"hello")
            conn.rest()
        ended.set()

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        until(lambda: edge.counters()["requests"] == 1)
        time.sleep(0.05)
        client.send(reset(stream, code))
        until(lambda: edge.counters()["client_aborts"] == 1)
        go.set()
        assert ended.wait(8)
        assert client.ask("/").status == 200
        assert edge.counters()["tunnels"] == 0


def test_what_outlives_the_stream_ends_without_it():
    """The bytes that the backend never takes are given up in time, after the connection's end, too."""
    def script(conn):
        switch(conn)
        conn.sock.shutdown(socket.SHUT_WR)
        time.sleep(1.5)

    with serving(Backend(script, receive_buffer=4096), write_idle_ms=300, tunnel_idle_ms=800) as edge:
        with H2Client(edge) as client:
            stream = connect(client)
            assert client.response(stream).ended
            client.upload(stream, bytes(60_000))
            time.sleep(0.1)
        edge.until_idle()
        until(lambda: edge.counters()["tunnels_open"] == 0)


@pytest.mark.parametrize("how", ["stream", "connection"])
def test_a_client_that_breaks_off_resets_the_backend(how):
    seen = []

    def script(conn):
        switch(conn)
        try:
            conn.rest()
        except ConnectionResetError as e:
            seen.append(e)

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        opened(client, stream)
        if how == "stream":
            client.send(reset(stream, CANCEL))
        else:
            client.client.reset()
        until(lambda: seen)
        until(lambda: edge.counters()["tunnels_open"] == 0)
    entry = edge.log()[-1]
    assert entry["error"] == {"stream": "stream reset by the client", "connection": "client reset"}[how]


def test_a_backend_that_breaks_off_resets_the_stream():
    def script(conn):
        switch(conn)
        conn.send(b"x")
        assert conn.exactly(1) == b"y"
        conn.reset()

    with serving(script) as edge, H2Client(edge) as client:
        stream = connect(client)
        assert got(client, stream, 1) == b"x"
        client.send(frame(DATA, 0, stream, b"y"))
        assert client.response(stream).reset == CANCEL
        assert edge.counters()["tunnels_open"] == 0
    assert edge.log()[-1]["error"] == "upstream closed"


def test_the_idle_timeout():
    with serving(echoing, timeouts={"tunnel_idle": 300, "total": 200, "body_idle": 50, "response_idle": 50}) as edge, \
            H2Client(edge) as client:
        stream = connect(client)
        opened(client, stream)
        for _ in range(3):
            time.sleep(0.15)
            client.send(frame(DATA, 0, stream, b"x"))
            assert got(client, stream, 1) == b"x"
        start = time.monotonic()
        assert client.response(stream).reset == CANCEL
        assert 0.2 < time.monotonic() - start < 3
    assert edge.log()[-1]["error"] == "timeout: websocket_idle"


def test_a_client_that_opens_no_window_is_cut():
    def script(conn):
        switch(conn)
        conn.send(bytes(1 << 20))
        conn.rest()

    with serving(script, timeouts={"write_idle": 200}) as edge, H2Client(edge, hold=True) as client:
        stream = connect(client)
        assert client.response(stream).reset == CANCEL
    assert edge.log()[-1]["error"] == "timeout: write_idle"


def test_a_worker_that_drains_leaves_tunnels_alone():
    with serving(echoing) as edge, H2Client(edge) as client:
        stream = connect(client)
        opened(client, stream)
        edge.call(lambda: edge.plane.drain(6000))
        client.until(lambda: client.goaways)
        client.send(frame(DATA, 0, stream, b"still"))
        assert got(client, stream, 5) == b"still"
        client.send(frame(DATA, END_STREAM, stream))
        assert client.response(stream).ended
        assert edge.ended.wait(4)


def test_a_server_of_http2_is_asked_for_no_switch():
    with serving(echo, pool={"protocol": "h2c"}) as edge, H2Client(edge) as client:
        assert client.response(connect(client)).status == 501
        assert edge.backends[0].accepted == 0
