"""What a client of HTTP/1.1 sees: one response per request, in order, whatever the pieces."""

import contextlib
import itertools
import re
import socket
import ssl
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import BytesClient, Client, echo, get, post, reply, serving, until


@pytest.fixture(scope="module")
def echoing():
    with serving(echo) as edge:
        yield edge


@pytest.fixture
def client(echoing):
    with Client(echoing) as client:
        yield client


def test_keep_alive(client):
    for n in range(3):
        response = client.ask(get(f"/{n}"))
        assert (response.status, response.body) == (200, b"GET /%d " % n)
        assert "connection" not in response.fields


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_body_of_length_0_is_no_reason_to_close(client, method):
    for _ in range(2):
        response = client.ask(post(b"", method=method))
        assert response.body == f"{method} / ".encode()
        assert "connection" not in response.fields


def test_bodies(client):
    assert client.ask(post(b"x" * 100_000)).body == b"POST / " + b"x" * 100_000
    chunked = get("/c", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert client.ask(chunked).body == b"POST /c abcde"
    assert client.ask(get()).status == 200


def test_head_announces_what_it_does_not_send(client):
    response = client.ask(get("/", method="HEAD"), head_only=True)
    assert response.fields["content-length"] == "7"
    assert client.ask(get()).body == b"GET / "


def test_a_refusal_after_a_head_request_has_its_content(client):
    client.ask(get("/", method="HEAD"), head_only=True)
    response = client.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert response.status == 400
    assert response.body == b"Bad Request\n"
    assert response.fields["connection"] == "close"
    assert client.ended()


def test_connection_close(client):
    response = client.ask(get("/", "Connection: close"))
    assert response.fields["connection"] == "close"
    assert client.ended()


@pytest.mark.parametrize(("fields", "kept"), [((), False), (("Connection: keep-alive",), True)])
def test_http_1_0(client, fields, kept):
    response = client.ask(get("/", *fields, version="1.0"))
    assert response.fields["connection"] == ("keep-alive" if kept else "close")
    assert kept or client.ended()


def test_connect_is_refused(client):
    response = client.ask(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    assert response.status == 405
    assert client.ended()


def test_empty_lines_before_a_request(client):
    assert client.ask(b"\r\n\r\n" + get("/a")).body == b"GET /a "
    client.send(b"\r")
    time.sleep(0.02)
    assert client.ask(b"\n" + get("/b")).body == b"GET /b "


@pytest.mark.parametrize("bad", [
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\rGET / HTTP/1.1\r\n", get("/", "Content-Length: 1", "Content-Length: 2"),
    get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), get("/", "X : 1"), get("/", " folded"),
])
def test_what_is_ambiguous_is_refused(client, bad):
    assert client.ask(bad).status == 400
    assert client.ended()


@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"])
def test_a_malformed_body(client, body):
    response = client.ask(get("/", "Transfer-Encoding: chunked", method="POST") + body)
    assert response.status == 400
    assert client.ended()


def test_limits(client):
    assert client.ask(get("/" + "a" * 9000)).status == 414
    assert client.ended()


# ---- pieces

STREAM = (get("/1") + post(b"two", "/2") + get("/3", "Transfer-Encoding: chunked", method="PUT")
          + b"4;a=b\r\nabcd\r\n0\r\nX-T: 1\r\n\r\n" + b"\r\n" + get("/4", method="HEAD") + post(b"", "/5") + get("/6"))
WANTED = [b"GET /1 ", b"POST /2 two", b"PUT /3 abcd", b"", b"POST /5 ", b"GET /6 "]


def answers(client):
    return [client.response(head_only=n == 3).body for n in range(6)]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, len(STREAM) - 1), max_size=8), segments=st.lists(st.integers(1, 1500), max_size=4))
def test_any_pieces_of_pipelined_requests(echoing, cuts, segments):
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    client = BytesClient(echoing)
    ciphertext = client.records(*(STREAM[a:b] for a, b in itertools.pairwise(edges)))
    for n in segments:
        client.tcp.sendall(ciphertext[:n])
        ciphertext = ciphertext[n:]
        time.sleep(0.001)
    client.tcp.sendall(ciphertext)
    assert answers(client) == WANTED
    client.close()


def test_byte_by_byte(echoing):
    client = BytesClient(echoing)
    client.tcp.sendall(client.records(*(STREAM[n:n + 1] for n in range(len(STREAM)))))
    assert answers(client) == WANTED
    for n in client.records(get("/7")):
        client.tcp.sendall(bytes([n]))
    assert client.response().body == b"GET /7 "
    client.close()


# ---- half-close

@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("fin", [True, False])
def test_all_that_came_before_close_notify_is_answered(echoing, together, fin):
    client = BytesClient(echoing)
    client.tcp.sendall(client.records(STREAM) + (client.close_notify() if together else b""))
    if not together:
        time.sleep(0.02)
        client.tcp.sendall(client.close_notify())
    if fin:
        client.tcp.shutdown(socket.SHUT_WR)
    # OpenSSL's unwrap() discards no data that comes after: SSL_read still returns it.
    assert answers(client) == WANTED
    assert client.recv(1) == b""
    client.close()
    echoing.until_idle()


@pytest.mark.parametrize("left", [b"", b"\r\n", b"GET / HT", get("/")[:-2], post(b"abc")[:-1]])
def test_what_close_notify_leaves_incomplete_is_not_waited_for(left):
    with serving(echo, listener={"header_ms": 0, "keepalive_ms": 0}, body_idle_ms=0, first_byte_ms=0) as edge:
        client = BytesClient(edge)
        client.tcp.sendall((client.records(left) if left else b"") + client.close_notify())
        client.tcp.shutdown(socket.SHUT_WR)
        edge.until_idle()
        client.close()


def test_body_and_close_notify_while_the_upstream_connects():
    def late(conn):
        time.sleep(0.05)
        echo(conn)

    with serving(late) as edge:
        for _ in range(5):
            client = BytesClient(edge)
            client.tcp.sendall(client.records(post(b"x"), post(b"y" * 20_000)[:50], post(b"y" * 20_000)[50:])
                               + client.close_notify())
            client.tcp.shutdown(socket.SHUT_WR)
            assert client.response().body == b"POST / x"
            assert client.response().body == b"POST / " + b"y" * 20_000
            client.close()
        edge.until_idle()


def test_a_cut_is_no_end(echoing):
    with Client(echoing) as client:
        client.send(get("/")[:-2])
        client.cut()
    echoing.until_idle()


# ---- responses

def scripted(*responses):
    def script(conn):
        for response in responses:
            conn.request()
            conn.send(response)
        conn.more()
    return script


def test_chunked_with_trailers_and_interim_responses():
    response = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n")
    with serving(scripted(*[response] * 3)) as edge, Client(edge) as client:
        for _ in range(2):
            client.send(get("/", "TE: trailers"))
            assert client.response().status == 103
            got = client.response()
            assert (got.body, got.trailers) == (b"hello world", b"X-Sum: 1\r\n")
        client.send(get("/", version="1.0"))
        got = client.response()
        assert (got.status, got.body) == (200, b"hello world")
    assert edge.backends[0].accepted == 1


def test_trailers_of_requests_are_passed_on():
    def script(conn):
        while True:
            conn.send(reply(conn.request().trailers))

    request = get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n0\r\nX-T: %d\r\n\r\n"
    with serving(script) as edge, Client(edge) as client:
        for n in range(3):
            assert client.ask(request % n).body == b"X-T: %d\r\n" % n


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_without_content(status):
    with serving(scripted(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode(), reply())) as edge, Client(edge) as client:
        assert client.ask(get()).status == int(status[:3])
        assert client.ask(get()).body == b"ok"
    assert edge.backends[0].accepted == 1


def test_a_body_until_the_end_of_the_connection():
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\n\r\nall ")
        time.sleep(0.02)
        conn.send(b"of it")

    with serving(script) as edge:
        with Client(edge) as client:
            assert client.ask(get()).body == b"all of it"
            assert client.ask(get()).body == b"all of it"       # chunked to us: the connection stays
        with Client(edge) as client:
            assert client.ask(get("/", version="1.0")).body == b"all of it"


def test_a_response_head_larger_than_a_record():
    fields = [f"X-{n}: {'v' * 8000}" for n in range(7)]
    with serving(scripted(reply(fields=fields), reply())) as edge, Client(edge) as client:
        response = client.ask(get())
        assert all(response.fields[f"x-{n}"] == "v" * 8000 for n in range(7))
        assert client.ask(get()).body == b"ok"


# ---- backpressure

def test_a_client_that_reads_no_responses_gets_no_further_ones_made():
    body = b"x" * 8000
    backend = scripted(*[reply(body)] * 1500)
    with serving(backend, send_buffer=16384) as edge, Client(edge, receive_buffer=4096) as client:
        client.sock.setblocking(False)
        requests = get() * 1500
        with contextlib.suppress(ssl.SSLWantWriteError, BlockingIOError):
            while requests:
                requests = requests[client.sock.send(requests[:16000]):]
        before = -1
        while (now := edge.counters()["requests"]) != before:
            before = now
            time.sleep(0.15)
        assert 20 < now < 100               # 256 KiB and what sockets hold
        client.sock.settimeout(8)
        for _ in range(now + 20):
            assert client.response().body == body


def test_a_slow_reader_of_a_large_body_gets_all_of_it():
    body = bytes(range(256)) * 16384

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        conn.send(body)
        conn.more()

    with serving(script, send_buffer=16384) as edge, Client(edge, receive_buffer=4096) as client:
        client.send(get())
        until(lambda: edge.chunks_in_use() > 15)
        time.sleep(0.1)
        assert edge.chunks_in_use() < 40            # HIGH_WATER and one read of 256 KiB
        assert client.response().body == body


# ---- the log

def test_log_lines_cannot_be_forged():
    nasty = '/"},{"x":"\\u0000%0a%22\\'
    with serving(echo) as edge:
        with Client(edge) as client:
            assert client.ask(get(nasty)).status == 200
        with Client(edge) as client:
            client.ask(b"GET /\x01 HTTP/1.1\r\n\r\n")
        edge.until_idle()
        edge.stop()
        entry, refused = edge.log()
        assert entry["path"] == nasty
        assert (entry["status"], entry["reused"], entry["host"]) == (200, False, "example.com")
        assert refused["status"] == 400
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
