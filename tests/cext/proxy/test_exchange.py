"""What backends do to an exchange: refuse, close, lie, hurry or dawdle."""

import socket
import ssl
import threading
import time

import pytest
from cext.proxy.router import Route
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import Backend, Client, Edge, echo, get, post, reply, serving, until


@pytest.fixture
def nobody():
    """The address of a server that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return ("tcp", *listener.getsockname())


def last_entry(edge):
    edge.until_idle()
    edge.stop()
    return edge.log()[-1]


# ---- no connection

def test_all_servers_refuse(nobody, tmp_path):
    edge = Edge(nobody, ("unix", str(tmp_path / "none.sock")))
    with Client(edge) as client:
        for _ in range(2):
            response = client.ask(get("/secret"))
            assert response.status == 503
            assert response.body == b"The service is not reachable at the moment.\n"
    edge.until_idle()
    edge.close()
    assert edge.counters()["upstream_failures"] == 2
    assert sum("none.sock: connect (No such file or directory)" in text for _, text in edge.errors) == 2
    assert sum(f"127.0.0.1:{nobody[2]}: connect" in text for _, text in edge.errors) == 2
    assert edge.log()[0]["error"] == "connect failed"


def test_another_server_is_asked(nobody):
    backend = Backend()
    edge = Edge(nobody, backend)
    with Client(edge) as client:
        for n in range(6):
            assert client.ask(post(b"x", f"/{n}")).status == 200
    edge.until_idle()
    # The one that refused was left alone afterwards.
    assert len([1 for _, text in edge.errors if "connect" in text]) == 1
    edge.close()
    backend.close()


def test_the_server_that_refused_longest_ago_is_asked_first(nobody):
    """Both refused lately; meanwhile the first has come back."""
    edge = Edge(nobody, ("tcp", "127.0.0.1", 1))
    with Client(edge) as client:
        assert client.ask(get()).status == 503
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(nobody[1:])
            listener.listen()
            backend = Backend.__new__(Backend)
            backend.__dict__.update(script=echo, accepted=0, open=[], failures=[], listener=listener)
            threading.Thread(target=backend._accept, daemon=True).start()
            for _ in range(4):
                assert client.ask(get("/", "Connection: keep-alive")).status == 200
            backend.close()
    edge.until_idle()
    edge.close()


def test_connect_timeout():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = ("tcp", *full.getsockname())
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        backend = Backend()
        edge = Edge(address, address, backend, connect_ms=50)
        with Client(edge) as client:
            for _ in range(3):
                assert client.ask(get()).status == 200
        edge.until_idle()
        edge.close()
        backend.close()
        edge = Edge(address, connect_ms=50)
        with Client(edge) as client:
            assert client.ask(get()).status == 504
        assert last_entry(edge)["error"] == "timeout: connect"
        edge.close()
        for filler in fillers:
            filler.close()


# ---- reuse and retry

def test_connections_are_reused():
    with serving(echo) as edge:
        with Client(edge) as client:
            for _ in range(5):
                assert client.ask(post(b"x")).status == 200
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        counters = edge.counters()
        assert (counters["upstream_connects"], counters["upstream_reuses"]) == (1, 5)
        edge.until_idle()
        edge.stop()
        assert [e["reused"] for e in edge.log()] == [False, True, True, True, True, True]


def once_then(end):
    """Answers one request per connection; at the second, end(conn). Later connections echo."""
    def script(conn):
        if conn.number:
            return echo(conn)
        conn.request()
        conn.send(reply())
        conn.line()
        return end(conn)
    return script


@pytest.mark.parametrize("end", [lambda conn: None, lambda conn: conn.reset()])
@pytest.mark.parametrize(("request_", "status"), [
    (get("/2"), 200), (get("/2", method="DELETE"), 200), (post(b"", method="PUT"), 200),
    (post(b""), 502), (get("/2", method="PATCH"), 502), (get("/2", method="BREW"), 502),
    (post(b"x" * 9, method="PUT"), 502), (get("/", "Transfer-Encoding: chunked", method="PUT") + b"0\r\n\r\n", 502),
])
def test_a_request_is_repeated_once_if_it_is_safe_to(end, request_, status):
    with serving(once_then(end)) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
        assert client.ask(request_).status == status
        assert client.ask(get()).status == 200
        assert edge.counters()["upstream_retries"] == (status == 200)


def test_a_fresh_connection_is_not_tried_again():
    def script(conn):
        conn.request()
        asked.append(1)
        if conn.number == 0:
            conn.send(reply())
            conn.request()

    asked = []
    with serving(script) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
        assert client.ask(get()).status == 502
        assert len(asked) == 2
        assert client.ask(get()).status == 502


def test_once_a_byte_of_the_response_has_come_it_is_not_repeated():
    def end(conn):
        conn.send(b"HTTP/1.1 2")

    with serving(once_then(end)) as edge, Client(edge) as client:
        client.ask(get())
        assert client.ask(get()).status == 502


def test_an_idle_connection_that_ends_leaves_the_pool():
    def script(conn):
        conn.request()
        conn.send(reply())
        closing.wait(8)

    closing = threading.Event()
    with serving(script) as edge, Client(edge) as client:
        client.ask(get())
        assert edge.group.idle_connections() == 1
        closing.set()
        until(lambda: edge.group.idle_connections() == 0)
        assert client.ask(post(b"x")).status == 200
        assert edge.backends[0].accepted == 2


# ---- the pool

def busy(edge, n):
    """n requests under way at once, then all answered."""
    clients = [Client(edge) for _ in range(n)]
    for client in clients:
        client.send(get())
    return clients


def test_pool_limits():
    def script(conn):
        while True:
            conn.request()
            gate.wait(8)
            conn.send(reply(b"%d" % conn.number))

    gate = threading.Event()
    with serving(script, pool={"max_idle": 2, "idle_ms": 800}) as edge:
        clients = busy(edge, 4)
        until(lambda: edge.backends[0].accepted == 4)
        gate.set()
        for client in clients:
            assert client.response().status == 200
        assert edge.group.idle_connections() == 4, "for a moment"
        until(lambda: edge.group.idle_connections() == 2)
        # The last used is used first, so the others come to their idle timeout.
        numbers = set()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            numbers.add(clients[0].ask(get()).body)
            time.sleep(0.01)
        assert len(numbers) == 1
        assert edge.group.idle_connections() == 1
        until(lambda: edge.group.idle_connections() == 0)
        for client in clients:
            client.close()


def test_no_pool():
    with serving(echo, pool={"max_idle": 0}) as edge, Client(edge) as client:
        for _ in range(3):
            assert client.ask(get()).status == 200
        assert edge.backends[0].accepted == 3


# ---- what a backend must not do

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"


@pytest.mark.parametrize("size", [2, 16384, 1 << 18, 300_000])
@pytest.mark.parametrize("pause", [0, 0.03])
def test_more_than_was_announced_is_nobody_elses_response(size, pause):
    def script(conn):
        conn.request()
        if pause:
            conn.send(reply(b"x" * size))
            time.sleep(pause)
            conn.send(POISON)
        else:
            conn.send(reply(b"x" * size) + POISON)
        conn.rest()

    with serving(script) as edge, Client(edge) as client:
        for _ in range(3):
            if pause:
                assert client.ask(get()).body == b"x" * size
                time.sleep(2 * pause)
            else:
                client.send(get() * 4)
                for _ in range(4):
                    assert client.response().body == b"x" * size


@pytest.mark.parametrize("bad", [
    b"hello\r\n\r\n", b"HTTP/1.1 200 OK\nX: y\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"\x00" * 100_000,
])
def test_a_response_that_is_none(bad):
    def script(conn):
        conn.request()
        conn.send(bad)
        conn.rest()

    with serving(script) as edge:
        with Client(edge) as client:
            for _ in range(2):
                response = client.ask(get())
                assert response.status == 502
                assert response.body == b"The service gave an answer that cannot be understood.\n"
        assert any("response cannot be understood" in text for _, text in edge.errors)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("part", [
    reply(b"x" * 100)[:-1], reply(b"x" * 1_000_000)[:-1],
    CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"z",
])
def test_a_cut_response_is_seen_as_one(part):
    def script(conn):
        conn.request()
        conn.send(part)

    with serving(script) as edge:
        with Client(edge) as client, pytest.raises(ssl.SSLError):
            client.ask(get())
        assert last_entry(edge)["error"] in ("upstream closed", "bad response")


def test_interim_responses_without_end_do_not_outlive_first_byte():
    def script(conn):
        conn.request()
        while True:
            conn.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            time.sleep(0.02)

    with serving(script, first_byte_ms=150) as edge, Client(edge) as client:
        client.send(get())
        while (status := client.response().status) == 102:
            pass
        assert status == 504


def test_interim_responses_are_counted():
    """They wait for the client where no window holds them back."""
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * (33 if conn.number else 32) + reply(b"at last"))
        conn.rest()

    with serving(script) as edge:
        with Client(edge) as client:
            client.send(get())
            assert [client.response().status for _ in range(32)] == [103] * 32
            assert client.response().body == b"at last"
        until(lambda: edge.group.idle_connections() == 1)
        edge.call(edge.group.close_idle)
        with Client(edge) as client:
            client.send(get())
            assert [client.response().status for _ in range(33)] == [103] * 32 + [502]
        assert last_entry(edge)["error"] == "bad response"
        assert "too many interim responses" in edge.errors[-1][1]


# ---- early answers

@pytest.mark.parametrize("close", [True, False])
def test_an_answer_before_the_request_is_complete(close):
    def script(conn):
        conn.head()
        conn.send(reply(b"too large", status="413 Content Too Large"))
        if not close:
            conn.rest()

    with serving(script) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 1000000", method="POST") + b"x" * 1000)
        response = client.response()
        assert (response.status, response.body) == (413, b"too large")
        assert response.fields["connection"] == "close"
        client.send(b"x" * 100_000)             # no reset meanwhile
        assert client.ended()


def test_a_backend_that_answers_and_goes_while_much_is_being_sent():
    def script(conn):
        conn.head()
        conn.send(reply(b"no", status="413 Content Too Large"))
        conn.sock.shutdown(socket.SHUT_WR)
        time.sleep(0.02)
        conn.reset()

    with serving(script) as edge:
        for _ in range(5):
            with Client(edge) as client:
                client.send(get("/", "Content-Length: 8000000", method="POST"))
                time.sleep(0.01)
                try:
                    for _ in range(100):
                        client.send(b"x" * 20_000)
                except OSError:
                    pass
                assert client.response().status == 413
        edge.until_idle()


def test_a_fast_sender_sees_the_refusal_and_no_reset():
    with serving(echo, routes=lambda group: [Route(group, path="/only")]) as edge:
        for _ in range(5):
            with Client(edge) as client:
                client.send(get("/", "Content-Length: 100000000", method="POST"))
                for _ in range(60):
                    client.send(b"x" * 65536)
                assert client.response().status == 404
                assert client.ended()


def test_expect_100_continue():
    def script(conn):
        while True:
            request = conn.head()
            if "expect" in request.fields:
                conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            conn.send(reply(conn.content(request, False).body))

    with serving(script) as edge, Client(edge) as client:
        for _ in range(2):
            client.send(get("/", "Content-Length: 4", "Expect: 100-continue", method="POST"))
            assert client.response().status == 100
            assert client.ask(b"body").body == b"body"
    assert edge.backends[0].accepted == 1


# ---- time

def test_first_byte_timeout():
    with serving(lambda conn: conn.rest(), first_byte_ms=80) as edge, Client(edge) as client:
        for request in (get(), post(b"x"), post(b"")):
            response = client.ask(request)
            assert (response.status, response.body) == (504, b"The service did not answer in time.\n")
            assert "connection" not in response.fields


@pytest.mark.parametrize(("settings_", "error"), [
    ({"response_idle_ms": 80}, "timeout: response_idle"), ({"total_ms": 120}, "timeout: total")])
def test_a_response_that_stalls(settings_, error):
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
        conn.rest()

    with serving(script, **settings_) as edge:
        with Client(edge) as client, pytest.raises(ssl.SSLError):
            client.ask(get())
        assert last_entry(edge)["error"] == error


def test_total_counts_what_trickles():
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            conn.send(b"x")
            time.sleep(0.01)

    with serving(script, total_ms=200) as edge, Client(edge) as client:
        started = time.monotonic()
        with pytest.raises(ssl.SSLError):
            client.ask(get())
        assert time.monotonic() - started < 1


def test_a_backend_that_stops_reading():
    """It is the backend's fault, not the client's, and what is held meanwhile is bounded."""
    def script(conn):
        conn.line()
        release.wait(8)

    release = threading.Event()
    # The client must find itself held back before body_idle ends the request: what it sends then is discarded.
    with serving(Backend(script, receive_buffer=4096), body_idle_ms=1000, response_idle_ms=1000) as edge:
        with Client(edge) as client:
            client.sock.settimeout(0.1)
            sent = 0
            try:
                client.send(get("/", "Content-Length: 100000000", method="POST"))
                while True:
                    sent += client.sock.send(b"x" * 16384)
            except (TimeoutError, OSError):
                pass
            assert sent < 16 << 20
            assert edge.chunks_in_use() < 40
            client.sock.settimeout(8)
            assert client.response().status == 504
        release.set()


def test_an_upload_may_go_on_behind_an_early_head():
    """The response stays silent for longer than body_idle, but the request moves."""
    def script(conn):
        request = conn.head()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        conn.content(request, False)
        conn.send(b"4\r\ndone\r\n0\r\n\r\n")

    with serving(script, response_idle_ms=150) as edge, Client(edge) as client:
        client.send(get("/", "Content-Length: 30", method="POST"))
        for _ in range(30):
            client.send(b"x")
            time.sleep(0.02)
        assert client.response().body == b"okdone"


# ---- pieces

RESPONSES = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;e=\"x\"\r\n!\r\n0\r\nX-T: 1\r\n\r\n",
    reply(b"y" * 40_000),
    b"HTTP/1.1 204 No Content\r\n\r\n",
)
BODIES = (b"hello", b"hello!", b"y" * 40_000, b"")
script_cuts = []


def in_pieces(conn):
    n = 0
    while True:
        conn.request()
        data = RESPONSES[n % 4]
        n += 1
        at = 0
        for cut in [*script_cuts, len(data)]:
            if at < cut <= len(data):
                conn.send(data[at:cut])
                at = cut
                time.sleep(0.001)


@pytest.fixture(scope="module")
def pieces():
    with serving(in_pieces) as edge:
        yield edge


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.one_of(st.integers(1, 120), st.integers(1, 40_100)), max_size=6, unique=True))
def test_any_pieces_of_a_response(pieces, cuts):
    script_cuts[:] = sorted(cuts)
    with Client(pieces) as client:
        for n in range(4):
            client.send(get())
            response = client.response()
            if response.status == 100:
                response = client.response()
            assert response.body == BODIES[n]


# ---- routes

def test_nothing_is_served_there():
    with serving(echo, routes=lambda group: [Route(group, path="/a")]) as edge, Client(edge) as client:
        client.send(get("/b") + get("/a?x") + post(b"no", "/c"))
        assert client.response().status == 404
        assert client.response().body == b"GET /a?x "
        last = client.response()
        assert (last.status, last.fields["connection"]) == (404, "close")
        assert client.ended()
