"""Requests in early data: refused, held, or forwarded, over both protocols, by clients of every kind."""

import os
import socket
import struct
import threading
import time

import pytest
from cext.proxy.early_rules import EarlyRules
from cext.proxy.router import Route
from cext.tls.replay import SharedRegister
from cext.tls.session import TicketKeys

from tests.cext.proxy.harness import SECONDS, Reader, get, post, reply, serving, until
from tests.cext.proxy.test_hooks import hooks
from tests.cext.proxy.test_states import Watched
from tests.cext.tls.peer import server_config
from tests.early_client import EarlyClient, session_of
from tests.h2_peer import DATA, END_STREAM, H2Peer, frame, request_fields

LIMIT = 16_384
UNIQUE = b"Early-Data-Unique"


class Seen:
    """A backend that notes the requests it gets, and answers them when it may."""

    def __init__(self):
        self.requests = []
        self.may = threading.Event()
        self.may.set()
        self.answers = {}                   # path -> what to answer first

    def __call__(self, conn):
        while True:
            request = conn.request()
            self.requests.append(request)
            assert self.may.wait(SECONDS)
            path = request.start.split()[1]
            answer = self.answers.pop(path, None) or reply(path.encode(), fields=())
            conn.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.start.startswith("HEAD") else answer)

    def paths(self):
        return [request.start.split()[1] for request in self.requests]

    def of(self, path):
        return [request for request in self.requests if request.start.split()[1] == path]


def tls(**more):
    register = SharedRegister(20_000, 4096)
    return {"tickets": TicketKeys([(b"n" * 16, os.urandom(32))]), "max_early_data": LIMIT, "replay": register, **more}


def routes(group):
    return [
        Route(group, path="/*"),
        Route(group, path="/f/*", early_data=EarlyRules("forward")),
        Route(group, path="/any/*", early_data=EarlyRules("forward", methods=("GET", "POST", "PURGE"), query=True,
                                                          content=True)),
        Route(group, path="/r/*", early_data=EarlyRules("reject")),
    ]


def early_edge(seen, *, listener=None, **more):
    more.setdefault("tls", server_config(alpn=(b"h2", b"http/1.1"), **tls()))
    return serving(seen, routes=routes, listener={"unique_header": UNIQUE, **(listener or {})}, **more)


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def edge(seen):
    with early_edge(seen) as edge:
        yield edge


def counted(edge, **wanted):
    """Waits for these counters, without their early_."""
    def found():
        counters = edge.counters()
        return {name: counters[f"early_{name}"] for name in wanted}
    until(lambda: found() == wanted)


class H1(Reader):
    """A client of HTTP/1.1 whose first requests are early data."""

    protocol = "http/1.1"

    def __init__(self, edge, session=None):
        self.client = EarlyClient(edge.port, session or session_of(edge.port))
        super().__init__(self.client)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, *requests):
        """(method, path) each: how they are told from each other is the number of the question."""
        self.client.send(b"".join(get(path, method=method) for method, path in requests))

    def status(self, _):
        return self.response().status


class H2:
    protocol = "h2"

    def __init__(self, edge, session=None):
        self.client = EarlyClient(edge.port, session or session_of(edge.port, alpn="h2"), alpn="h2")
        self.peer = H2Peer(self.hold_back, lambda: self.client.recv(65536))
        self.streams = []
        self.begun = True
        self.client.send(self.pending)

    pending = b""
    begun = False

    def hold_back(self, data):
        if self.begun:
            self.client.send(data)
        else:
            self.pending += data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, *requests):
        self.streams += [self.peer.get(path, method=method) for method, path in requests]

    def status(self, i):
        return self.peer.response(self.streams[i]).status


@pytest.fixture(params=[H1, H2], ids=["h1", "h2"])
def kind(request):
    return request.param


def test_a_safe_request_is_forwarded_at_once(edge, seen, kind):
    with kind(edge) as client:
        client.ask(("GET", "/f/one"))
        assert client.status(0) == 200, "before the client's Finished"
        [request] = seen.of("/f/one")
        assert request.fields["early-data"] == "1"
        fingerprint, number = request.fields["early-data-unique"].split("-")
        assert len(bytes.fromhex(fingerprint)) == 32 and number == "1"
        counted(edge, forwarded=1, confirmed=0, accepted=0)
        client.client.confirm()
        client.ask(("GET", "/f/two"))
        assert client.status(1) == 200
    [request] = seen.of("/f/two")
    assert "early-data" not in request.fields and "early-data-unique" not in request.fields
    counted(edge, forwarded=1, confirmed=0, offered=1, accepted=1)


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/f/q?a=1"), ("GET", "/f/q?"), ("POST", "/f/p"), ("DELETE", "/f/d"), ("GET", "/plain"), ("PURGE", "/f/x"),
    ("POST", "/any/p?q=1"),
])
def test_what_is_not_safe_waits(edge, seen, kind, method, path):
    safe = path.startswith("/any/")
    with kind(edge) as client:
        client.ask((method, path), ("GET", "/f/behind"))
        assert client.client.flight()
        if kind is H2:                      # another stream is not held up
            assert client.status(1) == 200
        elif not safe:
            assert not seen.requests
        assert bool(seen.of(path)) <= safe
        if not safe:
            client.client.confirm()
        assert client.status(0) == 200
        if kind is H1:
            client.status(1)
    [request] = seen.of(path)
    assert ("early-data" in request.fields) == ("early-data-unique" in request.fields) == safe


def test_safe_by_its_own_rules(edge, seen, kind):
    with kind(edge) as client:
        client.ask(("PURGE", "/any/x?y"), ("DELETE", "/any/d"))
        assert client.status(0) == 200
        assert not seen.of("/any/d")
        client.client.confirm()
        assert client.status(1) == 200
    counted(edge, forwarded=1, confirmed=1)


def test_a_route_that_rejects(edge, seen, kind):
    with kind(edge) as client:
        client.ask(("GET", "/r/one"), ("GET", "/f/two"))
        assert client.status(0) == 425
        assert client.status(1) == 200, "the connection goes on"
        client.client.confirm()
        client.ask(("GET", "/r/again"))
        assert client.status(2) == 200
    assert seen.paths() == ["/f/two", "/r/again"]
    counted(edge, answered_425=1, forwarded=1)


def test_several_requests_in_several_records(edge, seen, kind):
    """Each has a name of its own, the same for a replay, by their order."""
    with kind(edge) as client:
        for path in ("/f/1", "/plain", "/f/3", "/f/4"):
            client.ask(("GET", path))
        counted(edge, forwarded=3 if kind is H2 else 1)
        assert client.client.flight()
        client.client.confirm()
        assert [client.status(i) for i in range(4)] == [200] * 4
    names = [request.fields.get("early-data-unique", "").rpartition("-") for request in seen.requests]
    by_path = dict(zip(seen.paths(), names, strict=True))
    assert by_path["/f/1"][2] == "1"
    if kind is H2:
        assert [by_path[path][2] for path in ("/f/3", "/f/4")] == ["3", "4"]
        assert len({by_path[path][0] for path in ("/f/1", "/f/3", "/f/4")}) == 1
    assert by_path["/plain"] == ("", "", "")


def test_a_clients_own_fields(edge, seen, kind):
    """Its unique header goes, however it is spelt; its Early-Data stays."""
    fields = ["Early-Data-Unique: forged", "early_data_unique: forged", "EARLY-DATA_UNIQUE: forged"]
    with kind(edge) as client:
        if kind is H1:
            client.client.send(get("/f/a", *fields), get("/f/b", "Early-Data: 1", *fields))
        else:
            extra = [tuple(f.lower().split(": ")) for f in fields]
            client.streams += [client.peer.get("/f/a", fields=extra),
                               client.peer.get("/f/b", fields=[*extra, ("early-data", "1")])]
        assert client.status(0) == client.status(1) == 200
        client.client.confirm()
        if kind is H1:
            client.client.send(get("/f/c", *fields), get("/f/d", "Early-Data: 1"), get("/r/e", "Early-Data: 1"))
        else:
            client.streams += [client.peer.get("/f/c", fields=extra),
                               *(client.peer.get(p, fields=[("early-data", "1")]) for p in ("/f/d", "/r/e"))]
        assert [client.status(i) for i in (2, 3, 4)] == [200, 200, 425], "early data of somebody in front of us"
    for path, early in (("/f/a", "1"), ("/f/b", "1"), ("/f/c", None), ("/f/d", "1")):
        [request] = seen.of(path)
        assert request.fields.get("early-data") == early
        assert "forged" not in str(request.fields)
    names = [request.fields["early-data-unique"].rpartition("-")[2] for request in seen.requests[:2]]
    assert sorted(names) == ["1", "2"]


def test_trailers_are_no_way_around(edge, seen, kind):
    with kind(edge) as client:
        client.client.confirm()
        if kind is H1:
            body = b"1\r\nx\r\n0\r\nX-One: 1\r\nearly_data-unique: forged\r\nX-Two: 2\r\n\r\n"
            client.client.send(get("/t", "Transfer-Encoding: chunked", method="POST") + body)
        else:
            trailers = [("x-one", "1"), ("early-data-unique", "forged"), ("x-two", "2")]
            client.streams.append(client.peer.post(b"x", "/t", trailers=trailers))
        assert client.status(0) == 200
    [request] = seen.requests
    assert request.trailers.lower() == b"x-one: 1\r\nx-two: 2\r\n"


def test_no_unique_header(seen, kind):
    with early_edge(seen, listener={"unique_header": b""}) as edge, kind(edge) as client:
        client.ask(("GET", "/f/a"))
        assert client.status(0) == 200
    [request] = seen.requests
    assert request.fields["early-data"] == "1" and "early-data-unique" not in request.fields


TOO_EARLY = reply(b"too early", status="425 Too Early")


def test_a_425_of_the_backend_is_asked_again(edge, seen, kind):
    """After the handshake, without a word of early data; the client sees one answer."""
    seen.answers["/f/a"] = TOO_EARLY
    with kind(edge) as client:
        client.ask(("GET", "/f/a"))
        assert client.client.flight()
        until(lambda: seen.paths() == ["/f/a"])
        counted(edge, retried=1)
        assert len(seen.requests) == 1
        client.client.confirm()
        assert client.status(0) == 200
        client.ask(("GET", "/f/b"))
        assert client.status(1) == 200
    first, second = seen.of("/f/a")
    assert first.fields["early-data"] == "1"
    assert "early-data" not in second.fields and "early-data-unique" not in second.fields
    assert {k: v for k, v in first.fields.items() if "early" not in k} == second.fields
    counted(edge, retried=1, forwarded=1, confirmed=0)


def test_a_425_when_the_handshake_is_confirmed_already(edge, seen, kind):
    seen.answers["/f/a"] = TOO_EARLY
    seen.may.clear()
    with kind(edge) as client:
        client.ask(("GET", "/f/a"))
        until(lambda: seen.paths() == ["/f/a"])
        client.client.confirm()
        until(lambda: edge.counters()["handshakes"] == 2)
        seen.may.set()
        assert client.status(0) == 200
    assert len(seen.of("/f/a")) == 2


def test_a_425_that_is_the_clients_business(edge, seen, kind):
    """It says itself that it was early; or it was not early for us; or a second one comes."""
    for path in ("/f/a", "/f/b"):
        seen.answers[path] = TOO_EARLY
    with kind(edge) as client:
        early = [("early-data", "1")]
        if kind is H1:
            client.client.send(get("/f/a", "Early-Data: 1"))
        else:
            client.streams.append(client.peer.get("/f/a", fields=early))
        assert client.status(0) == 425
        client.client.confirm()
        client.ask(("GET", "/f/b"))
        assert client.status(1) == 425
    counted(edge, retried=0)
    assert seen.paths() == ["/f/a", "/f/b"]


def test_a_425_and_the_client_has_gone(edge, seen, kind):
    seen.answers["/f/a"] = TOO_EARLY
    with kind(edge) as client:
        client.ask(("GET", "/f/a"))
        counted(edge, retried=1)
    edge.until_idle()
    assert seen.paths() == ["/f/a"]


def test_a_safe_request_with_content(edge, seen):
    """Configured so: its head goes at once, its content as it comes, and a 425 behind content is passed on."""
    with H1(edge) as client:
        body = b"x" * 3000
        client.client.send(post(body, "/any/p")[:-2000])
        until(lambda: edge.counters()["early_forwarded"] == 1)
        client.client.confirm()
        client.client.send(body[:2000])
        assert client.status(0) == 200
    [request] = seen.requests
    assert request.body == body and request.fields["early-data"] == "1"
    seen.answers["/any/again"] = TOO_EARLY
    with H1(edge) as client:
        client.client.send(post(body, "/any/again"))
        assert client.status(0) == 425


def test_content_waits_with_its_request(edge, seen, kind):
    body = b"y" * 6000
    with kind(edge) as client:
        if kind is H1:
            client.client.send(post(body[:4000], "/p").replace(b"4000", b"6000"))
        else:
            stream = client.peer.post(body[:4000], "/p", end=False)
            client.streams.append(stream)
        assert client.client.flight()
        client.client.confirm()
        if kind is H1:
            client.client.send(body[4000:], get("/behind"))
        else:
            client.peer.send(frame(DATA, END_STREAM, stream, body[4000:]))
            client.ask(("GET", "/behind"))
        assert client.status(0) == client.status(1) == 200
    [request] = seen.of("/p")
    assert request.body == body


# The boundary between early and late.


def test_a_head_in_the_middle_of_the_boundary(edge, seen):
    """Of HTTP/1.1: its first bytes are early, and that counts."""
    for path, status in (("/r/a", 425), ("/f/a", 200), ("/a", 200)):
        with H1(edge) as client:
            head = get(path)
            client.client.send(get("/f/first"), head[:11])
            assert client.status(0) == 200
            client.client.confirm()
            client.client.send(head[11:], get("/r/late"))
            assert client.status(1) == status
            assert client.status(2) == 200, "wholly behind it"
    [request] = seen.of("/f/a")
    assert "early-data" not in request.fields
    assert len(seen.of("/r/late")) == 3


def test_half_of_the_pipelined_requests_early(edge, seen):
    with H1(edge) as client:
        whole = b"".join(get(path) for path in ("/a", "/r/b", "/f/c", "/r/d", "/r/e"))
        cut = whole.index(b"/r/d") + 2
        client.client.send(whole[:cut])
        assert client.client.flight()
        client.client.confirm()
        client.client.send(whole[cut:])
        assert [client.status(i) for i in range(5)] == [200, 425, 200, 425, 200]
    assert seen.paths() == ["/a", "/f/c", "/r/e"]


@pytest.mark.parametrize("cut", [1, 3, 4, 8, 9, 10, 14, 15, 20, -1])
@pytest.mark.parametrize("padded", [False, True])
def test_a_header_block_in_the_middle_of_the_boundary(edge, seen, cut, padded):
    """Of HTTP/2, wherever the cut is: in the frame's header, in what stands before the block, in the block."""
    with H2(edge) as client:
        stream = client.peer.stream()
        block = client.peer.encoder.encode(request_fields("/r/a"))
        # PADDED and PRIORITY: six bytes before the block
        before = b"\x03" + bytes(4) + b"\x10" if padded else b""
        payload = before + block + (bytes(3) if padded else b"")
        head = frame(1, 0x05 | (0x28 if padded else 0), stream, payload)
        client.streams.append(stream)
        client.client.send(head[:cut])
        assert client.client.flight()
        client.client.confirm()
        client.client.send(head[cut:])
        assert client.status(0) == 425
        client.ask(("GET", "/r/late"))
        assert client.status(1) == 200
    assert seen.paths() == ["/r/late"]


def test_a_partial_frame_that_is_no_request(edge, seen):
    """Of HTTP/2: a PING, or a request's content, in the middle of the boundary makes nothing that follows early."""
    ping = frame(6, 0, 0, bytes(8))
    with H2(edge) as client:
        stream = client.peer.post(b"", "/p", end=False)
        content = frame(DATA, END_STREAM, stream, b"content")
        client.streams.append(stream)
        client.client.send(ping + content[:12])
        assert client.client.flight()
        client.client.confirm()
        client.client.send(content[12:])
        client.ask(("GET", "/r/late"))
        assert client.status(0) == client.status(1) == 200
        assert client.peer.pongs == 1
    assert sorted(seen.paths()) == ["/p", "/r/late"]


def test_all_that_the_ticket_allows(edge, seen):
    """Early data right at its limit waits in memory, and one byte more ends the connection."""
    session = session_of(edge.port)
    padding = LIMIT - len(get("/p", "X: "))
    with H1(edge, session) as client:
        head = get("/p", "X: " + "y" * (padding if padding < 8000 else 8000))
        rest = LIMIT - len(head)
        client.client.send(head, b"\r\n" * (rest // 2) + b"\r\n"[:rest % 2])
        assert client.client.engine.early_data_left == 0
        assert client.client.flight()
        client.client.confirm()
        assert client.status(0) == 200
    [request] = seen.requests
    assert len(request.fields["x"]) == 8000


def test_early_data_and_then_garbage(edge, seen, kind):
    """Held requests end with the connection, whose client gets the alert."""
    with kind(edge) as client:
        client.ask(("GET", "/a"), ("GET", "/f/b"))
        assert client.client.flight()
        if kind is H2:
            assert client.status(1) == 200
        client.client.sock.sendall(b"\x17\x03\x03\x00\x20" + os.urandom(32))
        with pytest.raises(AssertionError, match="bad_record_mac"):
            while True:
                client.client.take()
    edge.until_idle()
    assert "/a" not in seen.paths()
    assert edge.counters()["handshake_failures"] == 1
    edge.stop()
    [held] = [line for line in edge.log() if line.get("path") == "/a"]
    assert held["error"] == "handshake not finished" and held["held"] == "handshake"


def test_a_handshake_that_is_never_confirmed(seen, kind):
    with early_edge(seen, listener={"handshake_ms": 400}) as edge, kind(edge) as client:
        client.ask(("GET", "/a"), ("GET", "/f/b"))
        assert client.client.flight()
        if kind is H2:
            assert client.status(1) == 200
        with pytest.raises((EOFError, ConnectionError)):
            client.status(0)
        edge.until_idle()
        assert edge.counters()["handshake_failures"] == 1
        assert "/a" not in seen.paths()
        edge.stop()
        [held] = [line for line in edge.log() if line.get("path") == "/a"]
        assert held["error"] == "timeout: handshake"
        assert any("handshake failed: timeout: handshake" in text for _, text in edge.errors)


def test_a_forwarded_request_does_not_stop_the_clock(seen):
    """Answers of ours, and a connection that is idle by then, change nothing about the time for the handshake."""
    with early_edge(seen, listener={"handshake_ms": 900, "keepalive_ms": 60_000}) as edge, H1(edge) as client:
        client.ask(("GET", "/f/b"))
        assert client.status(0) == 200
        until(lambda: edge.counters()["connections_idle"] == 1)
        with pytest.raises((EOFError, ConnectionError)):
            client.status(1)
        assert edge.counters()["handshake_failures"] == 1


def test_a_client_that_goes_while_its_requests_wait(edge, seen, kind):
    with kind(edge) as client:
        client.ask(("GET", "/a"), ("GET", "/b"))
        assert client.client.flight()
    edge.until_idle()
    assert seen.requests == []
    assert edge.counters()["handshake_failures"] == 1


def test_a_client_that_closes_in_early_data(edge, seen):
    """close_notify instead of a Finished: nothing can be confirmed any more."""
    with H1(edge) as client:
        client.client.engine.send(get("/a"))
        client.client.engine.send_close_notify()
        client.client.put(client.client.engine.take_output())
        edge.until_idle()
    assert seen.requests == []


def test_a_client_that_is_gone_when_its_early_request_is_answered_has_failed_its_handshake(edge, seen):
    """The answer and the client's reset come in the same turn, the answer first: it is the write that finds out."""
    seen.may.clear()
    with H1(edge) as client:
        client.ask(("GET", "/f/a"))
        until(lambda: seen.requests)
        before = edge.counters()["handshake_failures"]

        def both():
            seen.may.set()
            time.sleep(0.2)                 # the backend's thread answers
            client.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.client.sock.close()

        edge.call(both)
        until(lambda: edge.counters()["connections_open"] == 0)
        assert edge.counters()["handshake_failures"] == before + 1


def test_states(seen, kind):
    """Each once, whatever comes first: the response, or the Finished."""
    with early_edge(seen) as edge:
        watched = Watched(edge)
        with kind(edge) as client:
            client.ask(("GET", "/f/a"))
            assert client.status(0) == 200
            until(lambda: edge.counters()["connections_idle"] == 1)
            client.client.confirm()
            client.ask(("GET", "/b"))
            assert client.status(1) == 200
        with kind(edge) as client:
            client.ask(("GET", "/a"))
            assert client.client.flight()
            until(lambda: edge.counters()["connections_active"] == 1)
            client.client.confirm()
            assert client.status(0) == 200
        watched.check()
        assert watched.paths()[1::2] == ["new active idle active idle closed", "new active idle closed"]


def test_a_response_that_ends_the_connection_first(edge, seen):
    """The client's Finished crosses our end: no reset may take the response from it."""
    with H1(edge) as client:
        client.client.send(get("/f/a", "Connection: close"))
        response = client.response()
        assert response.status == 200 and response.fields["connection"] == "close"
        client.client.confirm()
        assert client.client.recv(1) == b""
    edge.until_idle()


def test_draining_while_requests_wait(seen, kind):
    """They are served, and told that it was the last time."""
    with early_edge(seen) as edge:
        with kind(edge) as client:
            client.ask(("GET", "/a"), ("GET", "/f/b"))
            assert client.client.flight()
            until(lambda: edge.counters()["connections_active"] == 1)
            edge.call(lambda: edge.plane.drain(10_000))
            client.client.confirm()
            assert client.status(0) == 200
            if kind is H2:
                assert client.status(1) == 200
        assert edge.ended.wait(SECONDS)


def test_upgrades_wait(edge, seen, kind):
    """Even on a route whose other requests go at once."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    with kind(edge) as client:
        if kind is H1:
            client.client.send(get("/f/ws", "Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}",
                                   "Sec-WebSocket-Version: 13"), b"early frame")
        else:
            fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                      (":authority", "example.com"), (":path", "/f/ws"), ("sec-websocket-version", "13")]
            stream = client.peer.stream()
            client.peer.send(client.peer.head(stream, fields, end=False))
            client.streams.append(stream)
        client.ask(("GET", "/f/plain"))
        assert client.client.flight()
        if kind is H2:
            assert client.status(1) == 200
        assert seen.of("/f/ws") == []
        client.client.confirm()
        if kind is H1:
            client.status(0)                # the backend declines: an ordinary response
        else:
            client.peer.until(lambda: client.peer.responses[stream].fields)
    [request] = seen.of("/f/ws")
    assert request.fields["upgrade"] == "websocket" and "early-data" not in request.fields


def test_a_tunnel_that_early_bytes_follow(seen):
    """What a client sends behind its request for a WebSocket comes to the server, early or not."""
    def switching(conn):
        assert conn.request().fields["upgrade"] == "websocket"
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        conn.send(b"got " + conn.exactly(10))

    with early_edge(switching) as edge, H1(edge) as client:
        client.client.send(get("/f/ws", "Connection: Upgrade", "Upgrade: websocket",
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"), b"early")
        assert client.client.flight()
        client.client.confirm()
        client.client.send(b"-late")
        assert client.head().status == 101
        assert client.exactly(14) == b"got early-late"


def test_where_no_route_is_to_know(seen, kind):
    """The default: nothing is read of it before, and all of it counts as confirmed."""
    with serving(seen, tls=server_config(alpn=(b"h2", b"http/1.1"), **tls())) as edge:
        with kind(edge) as client:
            client.ask(("GET", "/a"), ("GET", "/b"))
            assert client.client.flight()
            assert edge.counters()["connections_new"] == 1
            client.client.confirm()
            client.ask(("GET", "/c"))
            assert [client.status(i) for i in range(3)] == [200] * 3
        counted(edge, confirmed=2, forwarded=0, offered=1, accepted=1)
        edge.until_idle()
        edge.stop()
        by_path = {line["path"]: line for line in edge.log()}
        assert [by_path[path].get("early_request") for path in ("/a", "/b", "/c")] == ["confirmed", "confirmed", None]


def test_the_log_and_what_was_refused(edge, seen, kind):
    session = session_of(edge.port, alpn=kind.protocol)
    with kind(edge, session) as client:
        client.ask(("GET", "/f/a"), ("GET", "/r/b"))
        assert [client.status(i) for i in range(2)] == [200, 425]
        with EarlyClient(edge.port) as replaying:       # a connection of its own, for its socket alone
            replaying.sock.sendall(client.client.first)
            counted(edge, accepted=0, offered=0)
        until(lambda: edge.counters()["early_refused_replayed"] == 1)
        client.client.confirm()
    edge.until_idle()
    counted(edge, offered=2, accepted=1, forwarded=1, answered_425=1)
    assert len(seen.requests) == 1
    edge.stop()
    by_path = {line["path"]: line for line in edge.log() if "path" in line}
    assert by_path["/f/a"]["early_data"] and by_path["/f/a"]["early_request"] == "forwarded"
    assert by_path["/r/b"]["early_request"] == "refused"


def test_the_same_ticket_again_is_told_why(seen, kind):
    """Early data that is not taken is skipped, and the client's second try is an ordinary one."""
    register = SharedRegister(20_000, 16)
    with early_edge(seen, tls=server_config(alpn=(b"h2", b"http/1.1"), **tls(replay=register))) as edge:
        session = session_of(edge.port, alpn=kind.protocol)
        for _ in range(100):
            register.enter(os.urandom(32))
        with kind(edge, session) as client:
            client.ask(("GET", "/f/a"))
            assert not client.client.flight()
            client.client.confirm()
            until(lambda: edge.counters()["early_refused_register_full"] == 1)
        edge.until_idle()
        assert seen.requests == []


def test_a_director_is_asked_when_nothing_holds_the_request(seen, kind):
    """What is forwarded may be a replay, and says so; all else is known to be none."""
    told = []

    def director(request):
        told.append((request.target, request.tls.handshake_confirmed))

    with early_edge(seen, hooks=hooks(director)) as edge, kind(edge) as client:
        client.ask(("GET", "/f/a"), ("GET", "/f/b?c"))
        counted(edge, forwarded=1)
        assert client.client.flight()
        assert told == [("/f/a", False)]
        client.client.confirm()
        assert client.status(0) == client.status(1) == 200
        assert told == [("/f/a", False), ("/f/b?c", True)]


def test_a_promise_is_not_forwarded(seen):
    """Of HTTP/2: what an early response names is asked for when the handshake is confirmed; names stay in order."""
    def promising(group):
        return [Route(group, path="/*", push=True, early_data=EarlyRules("forward"))]

    seen.answers["/page"] = reply(b"page", fields=["Link: </style>; rel=preload"])
    with serving(seen, routes=promising, listener={"unique_header": UNIQUE},
                 tls=server_config(alpn=(b"h2", b"http/1.1"), **tls())) as pushing, H2(pushing) as client:
        client.ask(("GET", "/page"))
        assert client.status(0) == 200
        assert client.peer.responses[client.streams[0]].promises
        client.ask(("GET", "/never-sent-early"))        # the engine writes no early data any more
        assert seen.paths() == ["/page"]
        client.client.confirm()
        assert client.status(1) == 200
        until(lambda: "/style" in seen.paths())
    assert all("early-data" not in request.fields for request in seen.of("/style"))
