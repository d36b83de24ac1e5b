"""Backends that fail: retries, other servers, and 5xx answers that tell the log and not the client."""

import re
import socket
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import free_port
from tests.e2e.scripted import OK


def stale(connection, request):
    """Answers the first request of a connection; at the second it closes without a word."""
    connection.body(request)
    if getattr(connection, "used", False):
        return False
    connection.used = True
    connection.send(OK if request.method != "HEAD" else OK.removesuffix(b"ok"))
    return True


# Retries.


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_repeatable_request_is_sent_again(make_edge, backend, method):
    """Once, on a fresh connection, when the backend closes the reused one before any byte of its response."""
    backend.on("/stale", stale)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.request(method, "/stale").status == 200
        assert client.request(method, "/stale").status == 200
    assert [r.connection for r in backend.seen("/stale")] == [0, 0, 1]
    record = edge.wait_request(count=2, path="/stale")
    assert (record["status"], record["retried"], record["reused"]) == (200, True, False)


@pytest.mark.parametrize(
    ("method", "body"), [("POST", b""), ("PATCH", b""), ("POST", b"data"), ("PUT", b"data"), ("X-OWN", b"")]
)
def test_another_request_is_not(make_edge, backend, method, body):
    backend.on("/stale", stale)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.get("/stale").status == 200
        response = client.request(method, "/stale", "Content-Length: 0", body=b"") if not body else client.request(
            method, "/stale", body=body)  # fmt: skip
        assert response.status == 502
        assert client.get("/ok").status == 200
    assert [r.connection for r in backend.seen("/stale")] == [0, 0]


def test_a_fresh_connection_that_fails_is_no_reason_to_repeat(make_edge, backend):
    backend.on("/gone", lambda c, r: False)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.get("/gone").status == 502
    assert len(backend.seen("/gone")) == 1


def test_it_is_repeated_once_only(make_edge, backend):
    """The fresh connection fails, too: that is the end of it."""

    def handler(connection, request):
        if connection.number == 0 and not getattr(connection, "used", False):
            connection.used = True
            connection.send(OK)
            return True
        return False

    backend.on("/dead", handler)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.get("/dead").status == 200
        assert client.get("/dead").status == 502
    assert len(backend.seen("/dead")) == 3


def test_nothing_is_repeated_after_a_byte_of_the_response(make_edge, backend):
    def handler(connection, request):
        if getattr(connection, "used", False):
            connection.send(b"HTTP/1.1 2")
            return False
        connection.used = True
        connection.send(OK)
        return True

    backend.on("/part", handler)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.get("/part").status == 200
        assert client.get("/part").status == 502
    assert len(backend.seen("/part")) == 2


def test_many_stale_connections(make_edge, backend):
    """A backend that closes all its idle connections: whatever is asked next succeeds."""
    edge = make_edge({"b": [backend.server]})
    barrier = threading.Barrier(8)

    def together(connection, request):
        barrier.wait(5)
        connection.send(OK)
        return True

    backend.on("/together", together)
    clients = [Client(edge) for _ in range(8)]
    for client in clients:
        client.send(b"GET /together HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        assert client.response().status == 200
    for connection in list(backend.open):
        connection.sock.shutdown(socket.SHUT_RDWR)
    for client in clients:
        assert client.request("POST", "/ok", body=b"x").status == 200
        client.close()


# Other servers.


def test_connect_failures_try_the_next_server(make_edge, backend):
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    edge = make_edge({"b": [dead[0], backend.server, dead[1]]})
    with Client(edge) as client:
        for _ in range(6):
            assert client.get("/ok").status == 200
            assert client.request("POST", "/ok", body=b"also what cannot be repeated").status == 200
    edge.wait_error("connect.*Connection refused")


def test_a_missing_unix_socket_tries_the_next_server(make_edge, backend, tmp_path):
    edge = make_edge({"b": [f"unix:{tmp_path}/none.sock", backend.server]})
    with Client(edge) as client:
        for _ in range(4):
            assert client.get("/ok").status == 200


def test_a_server_that_comes_back_is_used_again(make_edge, backend):
    port = free_port()
    edge = make_edge({"b": [f"127.0.0.1:{port}"]})
    with Client(edge) as client:
        assert client.get("/ok").status == 503
        backend.listen_on(port)
        assert client.get("/ok").status == 200


# What the client is told, and what the operator.

SECRETS = re.compile(rb"127\.0\.0\.1|\d{4,5}|refused|errno|unix:|\.sock|Traceback|upstream", re.IGNORECASE)


def told(response) -> bytes:
    """The body: a short text without a detail."""
    assert response.get("content-type") == "text/plain; charset=utf-8"
    assert 0 < len(response.body) < 200
    assert not SECRETS.search(response.body), response.body
    return response.body


def test_503_when_nothing_can_be_reached(make_edge):
    port = free_port()
    edge = make_edge({"b": [f"127.0.0.1:{port}"]})
    with Client(edge) as client:
        response = client.get("/x")
        assert response.status == 503
        told(response)
        assert client.get("/y").status == 503  # the connection goes on
    edge.wait_error(rf"upstream b 127\.0\.0\.1:{port}: connect \(Connection refused\); request 'GET /x'")
    record = edge.wait_request(path="/x")
    assert (record["status"], record["error"]) == (503, "connect failed")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\1\2" * 1000,
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_502_for_what_is_no_response(edge, scripted, answer):
    scripted.on("/s/bad", lambda c, r: c.send(answer))
    since = edge.mark()
    with Client(edge) as client:
        response = client.get("/s/bad")
        assert response.status == 502
        told(response)
        assert client.get("/s/ok").status == 200
    edge.wait_error(r"upstream scripted 127\.0\.0\.1:\d+: .*request 'GET /s/bad'", since)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_response_that_breaks_off_is_cut(edge, scripted, answer):
    """The head has gone already: the client must not take the part for the whole. No close_notify comes."""
    scripted.on("/s/cut", lambda c, r: c.send(answer))
    known = len(edge.requests(path="/s/cut"))
    with Client(edge) as client, pytest.raises(OSError):  # ssl.SSLEOFError, or a reset
        client.get("/s/cut")
    record = edge.wait_request(count=known + 1, path="/s/cut")
    assert record["status"] == 200
    assert record["error"] in ("upstream closed", "bad response")


def test_a_reset_is_a_502(edge, scripted):
    scripted.on("/s/reset", lambda c, r: c.reset())
    with Client(edge) as client:
        told(client.get("/s/reset"))
        assert client.get("/s/ok").status == 200


def test_504_when_no_answer_comes(make_edge, backend):
    backend.on("/never", lambda c, r: c.wait_closed())
    edge = make_edge({"b": [backend.server]}, route_timeouts={"first_byte": "200ms"})
    with Client(edge) as client:
        response = client.get("/never")
        assert response.status == 504
        told(response)
        assert client.get("/ok").status == 200
    edge.wait_error(r"upstream b 127\.0\.0\.1:\d+: timeout: first_byte; request 'GET /never'")
    assert edge.wait_request(path="/never")["error"] == "timeout: first_byte"


def test_more_than_was_announced_is_not_the_next_response(edge, scripted):
    """Response splitting: what stands behind a response belongs to no request."""
    more = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    scripted.on("/s/more", lambda c, r: c.send(more) or True)
    with Client(edge) as client:
        for _ in range(5):
            assert client.get("/s/more").body == b"ok"
            assert client.get("/s/ok").body == b"ok"


def test_an_answer_while_idle_is_not_the_next_response(make_edge, backend):
    """What a pooled connection says unasked ends it."""

    def handler(connection, request):
        connection.send(OK)
        time.sleep(0.05)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        return True

    backend.on("/unasked", handler)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        assert client.get("/unasked").body == b"ok"
        time.sleep(0.3)
        assert client.get("/ok").body == b"ok"
    assert backend.seen("/ok")[0].connection == 1


def test_clients_that_go_away_end_their_requests(make_edge, backend):
    """A response nobody waits for is not fetched: its backend connection is closed at once."""
    gone = []
    backend.on("/leave", lambda c, r: gone.append(c.wait_closed(5)))
    edge = make_edge({"b": [backend.server]})
    client = Client(edge)
    client.send(b"GET /leave HTTP/1.1\r\nHost: a\r\n\r\n")
    backend.wait_seen("/leave")
    client.raw.close()
    client.sock.close()
    record = edge.wait_request(path="/leave")
    assert record["error"].startswith("client")
    deadline = time.monotonic() + 3
    while not gone and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone == [True]


def test_backends_own_errors_pass_unchanged(edge):
    with Client(edge) as client:
        for status in (500, 502, 503, 504):
            response = client.get(f"/app/status/{status}")
            assert (response.status, response.body) == (status, f"status {status}".encode())


def test_a_backend_restarts(make_edge, backend):
    """Its idle connections end, its port refuses for a while, then all is as before: on one client connection."""
    edge = make_edge({"b": [backend.server]})
    port = int(backend.server.rpartition(":")[2])
    with Client(edge) as client:
        assert client.get("/ok").status == 200
        backend.close()
        assert client.get("/ok").status == 503
        backend.listen_on(port)
        assert client.get("/ok").status == 200
