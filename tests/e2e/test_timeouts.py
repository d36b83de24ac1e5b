"""Every time limit, with settings of a fraction of a second: it ends what is late, in time, and nothing else."""

import socket
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import wait_until
from tests.e2e.scripted import OK, Backend
from tests.e2e.server import Edge

LATE = 2.0
"""Limits are 0.3 s below; what ends later than this has missed them."""


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, pki):
    """Short limits everywhere; the backend is `hasty.backend`. Routes /connect, /total and /idle differ in theirs."""
    with Backend() as backend:
        short = "300ms"
        routes = [
            {"match": {}, "upstream": "b", "timeouts": {"write_idle": short, "first_byte": short}},
            {"match": {"path": "/total/*"}, "upstream": "b", "timeouts": {"total": short, "body_idle": "1m"}},
            {"match": {"path": "/connect"}, "upstream": "full", "timeouts": {"connect": short}},
            {"match": {"path": "/connect-next"}, "upstream": "next", "timeouts": {"connect": short}},
        ]
        with socket.socket() as full:
            # A listener that never accepts, its queue full: connecting to it takes for ever.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = []
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(full.getsockname())
            address = f"127.0.0.1:{full.getsockname()[1]}"
            upstreams = {"b": [backend.server], "full": [address], "next": [address, backend.server]}
            backend.on("/connect-next", backend.handlers["/ok"])
            timeouts = dict.fromkeys(("handshake", "header", "keepalive", "body_idle", "response_idle"), short)
            directory = tmp_path_factory.mktemp("hasty")
            with Edge(directory, pki, upstreams, routes=routes, listener={"timeouts": timeouts}) as edge:
                edge.backend = backend
                yield edge
            for s in waiting:
                s.close()
        assert backend.faults == []


class Clock:
    """Holds a block to its time."""

    def __init__(self, least: float = 0.2, most: float = LATE) -> None:
        self.least, self.most = least, most

    def __enter__(self) -> None:
        self.begin = time.monotonic()

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            seconds = time.monotonic() - self.begin
            assert self.least <= seconds <= self.most, f"{seconds:.2f} s"


def ended(s: socket.socket) -> bytes:
    """All that comes until the server's end; TimeoutError when none comes."""
    got = b""
    try:
        while data := s.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


# The client's side.


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 100])
def test_handshake(hasty, sent):
    """A client that connects and says nothing, or a part: an end in time, and a line in the error log."""
    since = hasty.mark()
    with socket.create_connection(("127.0.0.1", hasty.port), 5) as s:
        s.sendall(sent)
        # TCP_DEFER_ACCEPT gives a silent connection up to a second (or two) before it is even accepted.
        with Clock(most=4.0 if not sent else LATE):
            ended(s)
    hasty.wait_error(r"127\.0\.0\.1:\d+: handshake failed: timeout", since)


def test_handshake_drop_by_drop(hasty):
    """Slowloris: each byte in time, the whole too late."""
    with socket.create_connection(("127.0.0.1", hasty.port), 5) as s, Clock():
        s.settimeout(0.05)
        for byte in b"\x16\x03\x01\x02\x00" + b"\x01" * 100:
            try:
                s.sendall(bytes((byte,)))
                if s.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("never closed")


@pytest.mark.parametrize("sent", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_header(hasty, sent):
    with Client(hasty) as client:
        client.send(sent)
        with Clock():
            response = client.response()
            assert (response.status, response.get("connection")) == (408, "close")
            assert client.closed()


def test_header_drop_by_drop(hasty):
    with Client(hasty) as client, Clock():
        client.sock.settimeout(0.05)
        for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 100:
            try:
                client.send(bytes((byte,)))
                client.more()
                break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("never answered")
        client.sock.settimeout(5)
        assert client.response().status == 408


def test_header_after_a_request(hasty):
    """The limit of a second request's head runs from its own first byte."""
    with Client(hasty) as client:
        assert client.get("/ok").status == 200
        time.sleep(0.2)
        client.send(b"GET /ok HTTP/1.1\r\n")
        time.sleep(0.2)
        client.send(b"Host: a\r\n\r\n")
        assert client.response().status == 200


def test_no_request_at_all(hasty):
    with Client(hasty) as client, Clock():
        assert client.closed()


def test_keepalive(hasty):
    with Client(hasty) as client:
        for _ in range(3):
            assert client.get("/ok").status == 200
            time.sleep(0.15)
        with Clock(least=0.1):
            assert client.closed()


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_request_body_idle(hasty, framing):
    hasty.backend.on("/body", lambda c, r: c.body(r) and c.send(OK))
    with Client(hasty) as client:
        client.send(f"POST /body HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
        client.send(b"5\r\nhello" if "chunked" in framing else b"hello")
        with Clock():
            response = client.response()
            assert (response.status, response.get("connection")) == (408, "close")
            assert client.closed()


def test_a_slow_request_body_in_time(hasty):
    """Each piece within the limit: the whole may take longer."""
    hasty.backend.on("/slow-body", lambda c, r: c.body(r) and (c.send(OK) or True))
    with Client(hasty) as client:
        client.send(b"POST /slow-body HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            client.send(b"x")
            time.sleep(0.1)
        assert client.response().status == 200


def test_write_idle(hasty):
    """A client that takes nothing of its response is cut, and the backend's connection with it."""
    closed = []

    def handler(connection, request):
        try:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            for _ in range(1600):
                connection.send(b"x" * 62500)
        except OSError:
            closed.append(True)

    hasty.backend.on("/endless", handler)
    with Client(hasty, receive_buffer=4096) as client:
        client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        with Clock():
            record = hasty.wait_request(path="/endless")
        assert record["error"] == "timeout: write_idle"
        wait_until(lambda: closed, 20, "end of the backend's connection")


# The upstream's side.


def test_connect(hasty):
    with Client(hasty) as client, Clock():
        assert client.get("/connect").status in (503, 504)
    assert hasty.wait_error(r"upstream full .*timeout: connect; request 'GET /connect'")


def test_connect_goes_on_with_the_next_server(hasty):
    with Client(hasty) as client:
        for _ in range(2):
            assert client.get("/connect-next").status == 200


def test_first_byte(hasty):
    hasty.backend.on("/silent", lambda c, r: c.wait_closed(3))
    with Client(hasty) as client:
        with Clock():
            assert client.get("/silent").status == 504
        assert client.get("/ok").status == 200


def test_first_byte_runs_from_the_end_of_the_request(hasty):
    """A body may take long to come, whatever the limit for the answer."""

    def handler(connection, request):
        connection.body(request)
        time.sleep(0.2)
        connection.send(OK)
        return True

    hasty.backend.on("/long-body", handler)
    with Client(hasty) as client:
        client.send(b"POST /long-body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            time.sleep(0.15)
            client.send(b"x")
        assert client.response().status == 200


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
                                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"])  # fmt: skip
def test_response_idle(hasty, begin):
    """A response that stops in its middle is cut, without close_notify."""

    def handler(connection, request):
        connection.send(begin)
        connection.wait_closed(3)

    hasty.backend.on("/stops", handler)
    with Client(hasty) as client, Clock(), pytest.raises(OSError):
        client.get("/stops")


def test_a_slow_response_in_time(hasty):
    def handler(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.1)
            connection.send(b"x")
        return True

    hasty.backend.on("/slow", handler)
    with Client(hasty) as client:
        assert client.get("/slow").body == b"x" * 8


def test_total(hasty):
    """However busily it goes on."""

    def handler(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(60):
            time.sleep(0.05)
            connection.send(b"x")

    hasty.backend.on("/total/busy", handler)
    with Client(hasty) as client, Clock(), pytest.raises(OSError):
        client.get("/total/busy")
    assert hasty.wait_request(path="/total/busy")["error"] == "timeout: total"


def test_total_before_the_response(hasty):
    hasty.backend.on("/total/silent", lambda c, r: c.wait_closed(3))
    with Client(hasty) as client, Clock():
        assert client.get("/total/silent").status == 504


def test_total_includes_the_request_body(hasty):
    hasty.backend.on("/total/body", lambda c, r: c.body(r) and c.send(OK))
    with Client(hasty) as client, Clock():
        client.send(b"POST /total/body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        client.sock.settimeout(0.05)
        for _ in range(60):
            try:
                client.send(b"x")
                client.more()
                break
            except TimeoutError:
                continue
        client.sock.settimeout(5)
        assert client.response().status == 408


def test_a_backend_that_reads_nothing(hasty):
    """The upload stops at the backend: it has response_idle to go on, then 504 or a cut."""
    hasty.backend.on("/deaf", lambda c, r: time.sleep(3))
    with Client(hasty) as client, Clock(most=4):
        client.send(b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        client.sock.settimeout(4)
        try:
            for _ in range(1600):
                client.send(b"x" * 62500)
        except OSError:
            return  # refused while sending
        assert client.response().status == 504


def test_none(make_edge, backend):
    """No limit: what would be late above is served."""
    none = "none"
    edge = make_edge(
        {"b": [backend.server]},
        listener={"timeouts": {"handshake": none, "header": none, "keepalive": none}},
        route_timeouts=dict.fromkeys(
            ("connect", "first_byte", "body_idle", "response_idle", "write_idle", "total", "websocket_idle"), none
        ),
    )

    def handler(connection, request):
        connection.body(request)
        time.sleep(0.6)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        time.sleep(0.6)
        connection.send(b"k")
        return True

    backend.on("/slow", handler)
    with socket.create_connection(("127.0.0.1", edge.port), 5) as mute:
        mute.sendall(b"\x16")
        with Client(edge) as client:
            time.sleep(0.7)
            client.send(b"POST /slow HTTP/1.1\r\n")
            time.sleep(0.7)
            client.send(b"Host: a\r\nContent-Length: 2\r\n\r\nx")
            time.sleep(0.7)
            client.send(b"x")
            assert client.response().body == b"ok"
            time.sleep(0.7)
            assert client.get("/ok").status == 200
        mute.settimeout(0.1)
        with pytest.raises(TimeoutError):
            mute.recv(1)  # still waited for


def test_limits_hold_for_many_at_once(hasty):
    """A crowd of slow clients, in each phase, is gone in time, and meanwhile others are served."""
    crowd = []
    for i in range(60):
        if i % 3 == 0:
            s = socket.create_connection(("127.0.0.1", hasty.port), 5)
            s.sendall(b"\x16\x03\x01")
            crowd.append((s, s))
            continue
        client = Client(hasty)
        if i % 3 == 1:
            client.send(b"GET / HTTP/1.1\r\n")
        crowd.append((client.sock, client))
    done = []

    def serve():
        with Client(hasty) as client:
            done.append(client.get("/ok").status)

    threads = [threading.Thread(target=serve) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert done == [200] * 10
    with Clock(least=0):
        for s, owner in crowd:
            s.settimeout(3)
            ended(s)
            owner.close()
