"""What a client of HTTP/2 sees: many requests at a time, none of which gets into another's way."""

import contextlib
import socket
import threading
import time

import pytest
from cext.proxy.router import Route

from tests.cext.proxy.harness import RESET, Backend, H2Client, echo, reply, serving, until
from tests.h2_peer import (
    CANCEL,
    DATA,
    END_STREAM,
    GOAWAY,
    INTERNAL_ERROR,
    NO_ERROR,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    frame,
    request_fields,
    reset,
    window,
)


@pytest.fixture(scope="module")
def echoing():
    with serving(echo) as edge:
        yield edge


@pytest.fixture
def client(echoing):
    with H2Client(echoing) as client:
        yield client


def seen(*fields_of_answer):
    """A backend that answers with the request's head and content as it got them, and that keeps them."""
    got = []

    def script(conn):
        while True:
            request = conn.request()
            got.append(request)
            conn.send(reply(request.body, fields=fields_of_answer))

    script.got = got
    return script


# ---- requests and responses


def test_requests_of_all_kinds(client):
    assert client.ask("/1").body == b"GET /1 "
    for n, method in enumerate(["POST", "PUT", "PATCH", "DELETE"]):
        body = b"x" * n * 20_000
        assert client.response(client.post(body, method=method)).body == f"{method} / ".encode() + body
    head = client.ask("/h", method="HEAD")
    assert (head.status, head.fields["content-length"], head.body) == (200, "8", b"")
    assert client.ask("/q?a=b&c").body == b"GET /q?a=b&c "


def test_a_thousand_streams(client):
    for _ in range(5):
        streams = [client.get(f"/{n}") for n in range(200)]
        for n, stream in enumerate(streams):
            assert client.response(stream).body == b"GET /%d " % n


def test_a_large_upload_and_its_echo(client):
    body = bytes(range(256)) * 8192
    stream = client.post(end=False)
    client.upload(stream, body)
    assert client.response(stream).body == b"POST / " + body


def test_a_large_response_in_one_window_is_sent_without_further_word_of_the_client():
    body = b"x" * 3_000_000
    with (
        serving(lambda conn: (conn.request(), conn.send(reply(body)))) as edge,
        H2Client(edge, hold=True, initial_window_size=1 << 24) as client,
    ):
        client.send(window(0, 1 << 24))
        assert client.ask().body == body


@pytest.mark.parametrize("status", [204, 304])
def test_without_content(status):
    with (
        serving(lambda conn: (conn.request(), conn.send(b"HTTP/1.1 %d X\r\nETag: x\r\n\r\n" % status))) as edge,
        H2Client(edge) as client,
    ):
        response = client.ask()
        assert (response.status, response.fields["etag"], response.body) == (status, "x", b"")


def test_the_head_that_a_backend_gets():
    script = seen()
    with serving(script) as edge, H2Client(edge) as client:
        client.ask("/", fields=[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")])
        request = script.got[0]
        assert request.start == "GET / HTTP/1.1"
        assert request.fields["host"] == "example.com"
        assert request.fields["cookie"] == "a=1; b=2"  # RFC 9113, section 8.2.3
        assert request.fields["x"] == "y"
        assert request.fields["x-forwarded-proto"] == "https"
        assert "transfer-encoding" not in request.fields


def test_trailers_both_ways():
    def script(conn):
        request = conn.request()
        conn.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"2\r\nok\r\n0\r\n" + request.trailers.replace(b"x-in", b"X-Sum") + b"\r\n"
        )

    with serving(script) as edge, H2Client(edge) as client:
        fields = [("x-in", "7"), ("content-length", "1"), ("host", "evil")]
        response = client.response(client.post(b"abc", trailers=fields[:1], fields=[("te", "trailers")]))
        assert (response.body, response.trailers) == (b"ok", {"x-sum": "7"})
    with serving(script) as edge, H2Client(edge) as client:  # those that must not come after the content
        response = client.response(client.post(b"abc", trailers=[fields[0], fields[2]]))
        assert (response.body, response.trailers) == (b"ok", {"x-sum": "7"})


def test_a_head_of_64_kib_that_hardly_compresses():
    fields = [f"X-{n}: {n:0250d}" for n in range(240)]
    with serving(lambda conn: (conn.request(), conn.send(reply(fields=fields)))) as edge, H2Client(edge) as client:
        response = client.ask()
        assert (response.status, response.fields["x-239"]) == (200, f"{239:0250d}")


def test_interim_responses():
    def script(conn):
        head = conn.head()
        assert head.fields["expect"] == "100-continue"
        conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        conn.content(head, False)
        conn.send(reply())

    with serving(script) as edge, H2Client(edge) as client:
        stream = client.post(end=False, fields=[("expect", "100-continue")])
        client.until(lambda: len(client.responses[stream].interim) == 2)
        client.upload(stream, b"abc")
        response = client.response(stream)
        assert [i[":status"] for i in response.interim] == ["103", "100"]
        assert response.interim[0]["link"] == "</s.css>; rel=preload"
        assert response.body == b"ok"


# ---- what is no request


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "GET"), (":scheme", "https"), (":path", "/")],  # no authority, no host
        request_fields(authority="user@example.com"),
        request_fields(fields=[("host", "other.example")]),
        request_fields(fields=[("content-length", "x")]),
        request_fields(fields=[("x_forwarded-for", "1"), ("host", "other")]),
        [(":method", "GET"), (":scheme", "x"), (":authority", "example.com"), (":path", "http://other/")],
        [(":method", "GET"), (":scheme", "x"), (":authority", "example.com"), (":path", "/a HTTP/1.1")],
    ],
    ids=str,
)
def test_what_is_no_request_reaches_no_backend(fields):
    script = seen()
    with serving(script) as edge, H2Client(edge) as client:
        stream = client.stream()
        client.send(client.head(stream, fields))
        response = client.response(stream)
        assert response.reset == PROTOCOL_ERROR or response.status == 400
        assert client.ask("/next").status == 200  # a matter of that stream alone
        assert [request.start for request in script.got] == ["GET /next HTTP/1.1"]


@pytest.mark.parametrize(
    "field",
    [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("Upper", "x"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        (":status", "200"),
        (":path", "/"),
        ("x y", "z"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
    ],
)
def test_invalid_fields_make_a_request_malformed(client, field):
    stream = client.stream()
    client.send(client.head(stream, request_fields(fields=[field])))
    assert client.response(stream).reset == PROTOCOL_ERROR  # RFC 9113, section 8.1.1
    assert client.ask().status == 200


def test_content_that_is_not_as_long_as_announced(client):
    for body, length in [(b"abc", "2"), (b"abc", "4")]:
        response = client.response(client.post(body, fields=[("content-length", length)]))
        assert response.reset == PROTOCOL_ERROR
    assert client.ask().status == 200


def test_limits_of_a_head(echoing):
    with H2Client(echoing) as client:
        assert client.ask(fields=[("x", "v" * 9000)]).status == 431
        assert client.ask(fields=[(f"x{n}", "v") for n in range(200)]).status == 431
        assert client.ask(fields=[(f"x{n}", "v" * 5000) for n in range(8)]).status == 431
        assert client.ask("/" + "p" * 9000).status == 414
        assert client.ask("/h", method="HEAD", fields=[("x", "v" * 9000)]).body == b""
        assert client.ask().status == 200


def test_connect_is_refused(client):
    stream = client.stream()
    client.send(client.head(stream, [(":method", "CONNECT"), (":authority", "example.com:443")], end=False))
    response = client.response(stream)
    assert response.status == 405
    client.until(lambda: response.reset is not None)
    assert response.reset == NO_ERROR


def test_what_is_answered_here(client):
    for method, path, status in (("TRACE", "/", 405), ("OPTIONS", "*", 204)):
        stream = client.stream()
        head = [(":method", method), (":scheme", "https"), (":authority", "example.com"), (":path", path)]
        client.send(client.head(stream, head, end=True))
        response = client.response(stream)
        assert response.status == status
        assert dict(response.fields)["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert (b"Method Not Allowed\n" if status == 405 else b"") == response.body


def test_errors():
    with serving(lambda conn: conn.request()) as edge, H2Client(edge) as client:
        assert client.ask().status == 502
    with serving(echo, routes=lambda group: [Route(group, path="/x")]) as edge, H2Client(edge) as client:
        assert client.ask().status == 404
    with serving(lambda conn: (conn.request(), conn.more()), first_byte_ms=60) as edge, H2Client(edge) as client:
        assert client.ask().status == 504
    with serving(lambda conn: (conn.request(), conn.more()), total_ms=60) as edge, H2Client(edge) as client:
        assert client.ask().status == 504
    with serving(Backend()) as edge, H2Client(edge) as client:
        edge.backends[0].close()
        assert client.ask().status == 503
        assert client.ask("/", method="HEAD").body == b""


# ---- resets


def test_a_response_that_is_cut_resets_its_stream():
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        assert sent.wait(5)

    sent = threading.Event()
    with serving(script) as edge, H2Client(edge) as client:
        stream = client.get()
        client.until(lambda: client.responses[stream].body)
        sent.set()
        response = client.response(stream)
        assert (response.status, response.body, response.reset) == (200, b"abc", INTERNAL_ERROR)


def test_a_stream_that_the_client_resets_ends_its_exchange():
    ended = threading.Event()

    def script(conn):
        if conn.request().start.startswith("GET /slow"):
            assert not conn.more()
            ended.set()
        else:
            conn.send(reply())

    with serving(script) as edge, H2Client(edge) as client:
        stream = client.get("/slow")
        until(lambda: edge.backends[0].accepted == 1)
        client.send(reset(stream))
        assert ended.wait(5)
        assert client.ask().status == 200
    assert edge.log()[0]["error"] == "stream reset by the client"


def test_a_client_that_vanishes_with_streams_open():
    with serving(lambda conn: (conn.request(), conn.more())) as edge:
        client = H2Client(edge)
        for _ in range(20):
            client.get()
        until(lambda: edge.counters()["requests"] == 20)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.sock.close()
        edge.until_idle()
    assert edge.counters()["client_aborts"] == 20


def test_a_response_before_the_request_has_ended():
    """The rest of the request is not wanted: RFC 9113, section 8.1."""

    def script(conn):
        conn.head()
        conn.send(reply(b"no", status="403 Forbidden"))
        conn.more()

    with serving(script) as edge, H2Client(edge) as client:
        stream = client.post(b"abc", end=False)
        response = client.response(stream)
        assert (response.status, response.body) == (403, b"no")
        client.until(lambda: response.reset is not None)
        assert response.reset == NO_ERROR
        client.send(frame(DATA, END_STREAM, stream, b"late"))
        assert client.ask().status == 403


def test_a_half_closed_stream_is_answered(client):
    stream = client.post(b"abc", end=False)
    client.send(frame(DATA, END_STREAM, stream))
    assert client.response(stream).body == b"POST / abc"


def test_close_notify_after_requests():
    release = threading.Event()

    def script(conn):
        conn.request()
        assert release.wait(5)
        conn.send(reply())

    with serving(script) as edge, H2Client(edge) as client:
        stream = client.get()
        until(lambda: edge.counters()["requests"] == 1)
        with contextlib.suppress(OSError):
            client.sock.settimeout(0.1)
            client.sock.unwrap()
        client.client.close()
        release.set()
        edge.until_idle()
        assert stream == 1


# ---- flow control


def slow_and_quick(body, asked):
    def script(conn):
        while True:
            request = conn.request()
            if request.start.startswith("GET /large"):
                asked.set()
                conn.send(reply(body))
            else:
                conn.send(reply())

    return script


def test_a_slow_reader_of_one_stream_stalls_neither_others_nor_memory():
    asked = threading.Event()
    with serving(slow_and_quick(b"x" * 3_000_000, asked)) as edge, H2Client(edge, hold=True) as client:
        large = client.get("/large")
        assert asked.wait(5)
        client.until(lambda: len(client.responses[large].body) == 65535)
        client.send(window(0, 1_000_000))
        for _ in range(50):
            assert client.ask().body == b"ok"
        assert edge.chunks_in_use() < 40
        client.hold = False
        client.send(window(large, 65535))
        assert len(client.response(large).body) == 3_000_000


def test_all_streams_together_hold_only_so_much():
    asked = threading.Event()
    with (
        serving(slow_and_quick(b"x" * 2_000_000, asked)) as edge,
        H2Client(edge, hold=True, initial_window_size=0) as client,
    ):
        for _ in range(100):
            client.get("/large")
        until(lambda: edge.counters()["requests"] == 100)
        time.sleep(0.5)
        assert edge.chunks_in_use() < 100 * 17 + 20


def test_an_upload_goes_at_its_backends_pace():
    release = threading.Event()

    def script(conn):
        head = conn.head()
        if head.start.startswith("POST /slow"):
            assert release.wait(8)
        conn.content(head, False)
        conn.send(reply(b"%d" % len(head.body)))

    with serving(script) as edge, H2Client(edge) as client:
        slow = client.post(path="/slow", end=False)
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            client.upload(slow, b"x" * 20_000_000, end=False)
        sent = client.uploaded
        client.sock.settimeout(8)
        assert 200_000 < sent < 12_000_000  # what sockets hold, and HIGH_WATER
        other = client.post(end=False)
        client.upload(other, b"y" * 1_000_000)
        assert client.response(other).body == b"1000000"  # while the slow one waits
        release.set()
        client.upload(slow, b"x" * 16384)
        assert client.response(slow).body == b"%d" % (sent + 16384)


def test_uploads_that_nobody_takes_hold_no_more_than_two_windows_of_the_connection():
    """The connection's window is opened at once, but not without end."""
    release = threading.Event()

    def script(conn):
        conn.head()
        assert release.wait(8)

    backend = Backend(script, receive_buffer=4096)
    with serving(backend, listener={"h2_connection_window": 300_000}) as edge, H2Client(edge) as client:
        client.until(lambda: client.room(0) == 300_000)
        client.sock.settimeout(0.3)
        for _ in range(30):
            stream = client.post(end=False)
            with contextlib.suppress(TimeoutError):
                client.upload(stream, b"x" * 10_000_000, end=False)
            if client.room(0) == 0:
                break
        assert client.room(0) == 0
        client.sock.settimeout(8)
        release.set()
        client.until(lambda: client.room(0) > 0)  # what was held is gone


# ---- time


def test_a_body_that_does_not_arrive():
    with serving(echo, body_idle_ms=80) as edge, H2Client(edge) as client:
        stream = client.post(b"abc", end=False)
        response = client.response(stream)
        assert response.status == 408
        client.until(lambda: response.reset is not None)
        assert response.reset == NO_ERROR
        assert client.ask().status == 200
    assert edge.log()[0]["error"] == "timeout: body_idle"


def test_a_client_that_takes_nothing_of_a_stream():
    asked = threading.Event()
    with (
        serving(slow_and_quick(b"x" * 1_000_000, asked), write_idle_ms=150) as edge,
        H2Client(edge, hold=True) as client,
    ):
        client.send(window(0, 1_000_000))
        large = client.get("/large")
        response = client.response(large)
        assert (len(response.body), response.reset) == (65535, CANCEL)
        assert client.ask().body == b"ok"
        assert edge.chunks_in_use() < 5
    assert edge.log()[0]["error"] == "timeout: write_idle"


def test_answers_of_ours_do_not_wait_for_a_window_for_ever():
    with (
        serving(echo, routes=lambda group: [Route(group, path="/x", timeouts={"write_idle": 100})]) as edge,
        H2Client(edge, hold=True, initial_window_size=0) as client,
    ):
        stream = client.get("/x")
        assert client.response(stream).reset == CANCEL


def test_a_head_that_does_not_end(echoing):
    with serving(echo, listener={"header_ms": 150}) as edge, H2Client(edge) as client:
        whole = client.head(1, request_fields())
        client.send(frame(1, END_STREAM, 1, whole[9:]))  # no END_HEADERS
        began = time.monotonic()
        assert client.end() == (0, NO_ERROR) or client.goaways
        assert time.monotonic() - began < 3
    with serving(echo, listener={"header_ms": 150}) as edge, H2Client(edge, begin=False) as client:
        client.send(b"PRI * HT")
        with contextlib.suppress(EOFError):
            while client.next_frame().type != GOAWAY:
                pass
        assert client.receive_bytes() == b""


def test_idle_connections_end_with_a_goaway():
    with serving(echo, listener={"keepalive_ms": 200}) as edge, H2Client(edge) as client:
        stream = client.get()
        client.response(stream)
        assert client.end() == (stream, NO_ERROR)


# ---- drain


def test_drain_serves_what_is_on_its_way():
    release = threading.Event()

    def script(conn):
        while True:
            conn.request()
            assert release.wait(5)
            conn.send(reply())

    with serving(script) as edge, H2Client(edge) as client:
        first = client.get()
        until(lambda: edge.counters()["requests"] == 1)
        edge.call(lambda: edge.plane.drain(5000))
        client.until(lambda: client.goaways)
        assert client.goaways == [(2**31 - 1, NO_ERROR)]
        second = client.get()  # crosses the GOAWAY
        until(lambda: edge.counters()["requests"] == 2)
        client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (second, NO_ERROR)
        release.set()
        assert client.response(first).body == client.response(second).body == b"ok"
        assert client.end() == (second, NO_ERROR)
        assert edge.ended.wait(5)


# ---- priorities (RFC 9218)


@pytest.mark.parametrize("by", ["field", "frame"])
def test_an_urgent_stream_overtakes(by):
    asked = threading.Event()
    with (
        serving(slow_and_quick(b"x" * 300_000, asked)) as edge,
        H2Client(edge, hold=True, initial_window_size=1 << 20) as c,
    ):
        c.send(window(0, 100_000 - 65535))
        bulk = c.get("/large", fields=[("priority", "u=5")])
        c.until(lambda: len(c.responses[bulk].body) == 100_000)  # the connection's window is used up
        held = edge.chunks_in_use()
        urgent = c.stream()
        fields = [("priority", "u=0")] if by == "field" else []
        c.send(c.head(urgent, request_fields("/large", fields=fields)))
        if by == "frame":
            c.send(frame(PRIORITY_UPDATE, payload=urgent.to_bytes(4, "big") + b"u=0"))
        until(lambda: edge.chunks_in_use() >= held + 7)  # as much of it as a stream holds waits
        c.order.clear()
        c.send(window(0, 1_000_000))
        c.response(urgent)
        assert c.order[:6] == [urgent] * 6
        c.response(bulk)


# ---- pushes (RFC 9113, section 8.4)

LINKS = (
    'Link: </s.css>; rel=preload; as=style, </n.js>;rel=preload;nopush, <https://example.com/b.js>; rel="x preload"',
    "Link: <https://other.example/c>; rel=preload, <//other/d>; rel=preload, <data:e>; rel=preload, </f>; rel=next",
)


def pushing(got):
    def script(conn):
        while True:
            request = conn.request()
            got.append(request)
            page = request.start.startswith("GET /page")
            conn.send(reply(request.start.encode(), fields=LINKS if page else ()))

    return script


def test_what_a_response_preloads_is_pushed():
    got = []
    with serving(pushing(got), push=True) as edge, H2Client(edge) as client:
        page = client.ask("/page", fields=[("cookie", "a=1"), ("range", "bytes=0-"), ("user-agent", "t")])
        assert [(fields[":path"], fields[":authority"]) for _, fields in page.promises] == [
            ("/s.css", "example.com"),
            ("/b.js", "example.com"),
        ]
        for stream, fields in page.promises:
            assert stream % 2 == 0
            assert fields["cookie"] == "a=1"
            assert fields["user-agent"] == "t"
            assert "range" not in fields
            assert client.response(stream).body == b"GET %s HTTP/1.1" % fields[":path"].encode()
        asked = {request.start: request.fields for request in got}
        assert asked["GET /s.css HTTP/1.1"]["cookie"] == "a=1"
        assert "range" not in asked["GET /s.css HTTP/1.1"]
        assert edge.counters()["requests"] == 3


def test_the_log_marks_what_nobody_asked_for():
    with serving(pushing([]), push=True) as edge, H2Client(edge) as client:
        for stream, _ in client.ask("/page").promises:
            client.response(stream)
    marked = {entry["path"]: entry.get("pushed") for entry in edge.log()}
    assert marked == {"/page": None, "/s.css": True, "/b.js": True}


def test_pushes_are_for_those_who_want_them():
    with serving(pushing([]), push=True) as edge, H2Client(edge, enable_push=0) as client:
        assert client.ask("/page").promises == []
    with serving(pushing([])) as edge, H2Client(edge) as client:  # off by default
        assert client.ask("/page").promises == []
    with serving(pushing([]), push=True) as edge, H2Client(edge) as client:
        assert client.response(client.post(b"", "/page")).promises == []


def test_a_push_that_the_client_refuses():
    with serving(pushing([]), push=True) as edge, H2Client(edge) as client:
        stream = client.get("/page")
        client.until(lambda: len(client.responses[stream].promises) == 2)
        for promised, _ in client.responses[stream].promises:
            client.send(reset(promised))
        client.response(stream)
        assert client.ask("/x").status == 200


def test_relative_targets_are_resolved_against_the_page():
    def script(conn):
        while True:
            page = conn.request().start.startswith("GET /a/b/page?x=/y/ ")
            links = ["Link: <c.css>; rel=preload, <../d.js>; rel=preload", "Link: <?q>; rel=preload, <#e>; rel=preload"]
            conn.send(reply(fields=links if page else ()))

    with serving(script, push=True) as edge, H2Client(edge) as client:
        page = client.ask("/a/b/page?x=/y/")
        assert [fields[":path"] for _, fields in page.promises] == ["/a/b/c.css", "/a/d.js", "/a/b/page?q"]


def test_early_hints_push_too():
    def script(conn):
        while True:
            if conn.request().start.startswith("GET /page"):
                conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n")
            conn.send(reply(fields=["Link: <s.css>; rel=preload, </t.js>; rel=preload"]))

    with serving(script, push=True) as edge, H2Client(edge) as client:
        page = client.ask("/page")
        assert [fields[":path"] for _, fields in page.promises] == ["/s.css", "/t.js"]
        assert [i[":status"] for i in page.interim] == ["103"]
