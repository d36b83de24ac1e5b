"""What clients may have at a time, and what becomes of more: its status, its line in the log, its counter."""

import contextlib
import socket
import ssl
import time
import types

import pytest
from cext.proxy.address_table import AddressTable
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.router import Route, Router

from tests.cext.proxy.harness import Client, H2Client, echo, get, post, reply, serving, until
from tests.cext.tls.peer import server_config
from tests.h2_peer import DATA, END_STREAM, NO_ERROR, frame

HERE = "127.0.0.1"


def refused(edge):
    """Whether a new connection is closed before any handshake."""
    with contextlib.suppress(ConnectionError), socket.create_connection((HERE, edge.port), 5) as tcp:
        tcp.sendall(b"\x16\x03\x01")
        return tcp.recv(1) == b""
    return True


def states(edge):
    counters = edge.counters()
    return {name: counters[f"connections_{name}"] for name in ("new", "active", "idle")}


def told(edge, part):
    return [text for level, text in edge.errors if part in text and level == "warning"]


def held(gate):
    """A backend that answers /wait once `gate` is no longer empty."""
    def script(conn):
        while True:
            request = conn.request()
            if request.start.startswith(("GET /wait", "POST /wait")):
                until(lambda: gate)
            conn.send(reply(request.body))

    return script


# ---- connections

def test_connections_of_a_listener():
    with serving(echo, listener={"max_connections": 2}) as edge:
        with Client(edge) as one, Client(edge) as two:
            until(lambda: edge.counters()["handshakes"] == 2)
            assert refused(edge)            # both are new: none is idle
            assert refused(edge)
            assert one.ask(get()).status == two.ask(get()).status == 200
            counters = edge.counters()
            assert (counters["connections"], counters["connections_over_limit"]) == (2, 2)
            assert counters["idle_closed"] == 0
        edge.until_idle()
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        [line] = told(edge, "limits.connections")
        assert line.startswith("127.0.0.1: connection refused")


def test_idle_ones_make_room():
    with serving(echo, listener={"max_connections": 3}) as edge:
        clients = [Client(edge) for _ in range(3)]
        for n in (1, 0, 2):
            clients[n].ask(get())
            time.sleep(0.02)
        with Client(edge) as late:
            assert late.ask(get()).status == 200
            assert clients[1].ended()       # in good order, and the one that has been idle longest
            for n in (0, 2):
                assert clients[n].ask(get()).status == 200
        assert edge.counters()["idle_closed"] == 1
        assert edge.counters()["connections_over_limit"] == 0
        for client in clients:
            client.close()


def test_an_idle_http2_connection_makes_room():
    with serving(echo, listener={"max_connections": 1}) as edge, H2Client(edge) as first:
        first.ask()
        with Client(edge) as second:
            assert second.ask(get()).status == 200
            assert first.end() == (1, NO_ERROR)


def test_busy_ones_do_not_make_room():
    gate = []
    with serving(held(gate), listener={"max_connections": 2}) as edge, Client(edge) as one, H2Client(edge) as two:
        one.send(get("/wait"))
        stream = two.get("/wait")
        until(lambda: states(edge)["active"] == 2)
        assert refused(edge)
        gate.append(True)
        assert one.response().status == two.response(stream).status == 200


def test_another_listener_has_room_of_its_own():
    """Idle connections of one do not give way to those of another; the counts are apart."""
    settings = ListenerSettings(server_config(), Router([]), max_connections=1)
    with serving(echo, listener={"max_connections": 1}) as edge, socket.socket() as second:
        second.bind((HERE, 0))
        second.listen()
        second.setblocking(False)
        edge.call(lambda: edge.plane.listen(second.fileno(), settings))
        other = types.SimpleNamespace(port=second.getsockname()[1])
        with Client(edge) as one, Client(other) as two:
            assert one.ask(get()).status == 200
            assert two.ask(get()).status == one.ask(get()).status + 204 == 404
            with Client(other) as three:
                assert three.ask(get()).status == 404
            assert two.ended()
            assert one.ask(get()).status == 200
        edge.until_idle()
        edge.call(edge.plane.stop_accepting)


def test_a_sleeping_http2_connection_makes_room():
    """Its memory is given back by then."""
    with serving(echo, listener={"max_connections": 1}) as edge, H2Client(edge) as first:
        first.ask()
        time.sleep(1.2)
        with Client(edge) as second:
            assert second.ask(get()).status == 200
            assert first.end() == (1, NO_ERROR)


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_over_the_limit_and_told_so(protocol):
    gate = []
    with serving(held(gate), listener={"max_connections": 1, "answer_over": True}) as edge, Client(edge) as one:
        one.send(get("/wait"))
        until(lambda: states(edge)["active"])
        with protocol(edge) as late:
            if protocol is Client:
                answer = late.ask(get())
                assert (answer.status, answer.fields["retry-after"]) == (503, "1")
                assert answer.fields["connection"] == "close"
                assert late.ended()
            else:
                answer = late.ask()
                assert (answer.status, answer.fields["retry-after"]) == (503, "1")
                assert late.end() == (1, NO_ERROR)
        gate.append(True)
        assert one.response().status == 200
        one.close()
        edge.until_idle()
        edge.stop()
        assert [(e["status"], e.get("error")) for e in edge.log()] == [(503, "limits.connections"), (200, None)]
        assert edge.counters()["connections_over_limit"] == 1


def test_those_that_are_told_so_are_bounded_themselves():
    """64 of them at a time; they do not count as served."""
    gate = []
    with serving(held(gate), listener={"max_connections": 1, "answer_over": True}) as edge, Client(edge) as one:
        one.send(get("/wait"))
        until(lambda: states(edge)["active"])
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.create_connection((HERE, edge.port))) for _ in range(64)]
            until(lambda: states(edge)["new"] == 64)
            assert refused(edge)
            for tcp in waiting[:3]:
                tcp.close()
            until(lambda: states(edge)["new"] == 61)
            with Client(edge) as late:
                assert late.ask(get()).status == 503
        gate.append(True)
        assert one.response().status == 200
        one.close()
        edge.until_idle()
        with Client(edge) as client:
            assert client.ask(get()).status == 200


def counted(**listener):
    table = AddressTable()
    return table, {"listener": listener, "plane": {"addresses": table}}


def test_connections_of_an_address():
    table, settings = counted(per_address=2)
    with serving(echo, **settings) as edge:
        with Client(edge) as one, Client(edge) as two:
            one.ask(get())
            two.ask(get())
            assert table.counts(HERE) == (2, 0)
            assert refused(edge)            # its own idle ones do not make room
            assert table.counts(HERE) == (2, 0)
        edge.until_idle()
        assert table.counts(HERE) == (0, 0)
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        [line] = told(edge, "limits.per_address")
        assert line.startswith("127.0.0.1: connection refused")
    assert table.counts(HERE) == (0, 0)


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_an_address_is_told_so(protocol):
    _, settings = counted(per_address=1, answer_over=True)
    with serving(echo, **settings) as edge, Client(edge) as one:
        one.ask(get())
        with protocol(edge) as late:
            answer = late.ask(get()) if protocol is Client else late.ask()
            assert (answer.status, answer.fields["retry-after"]) == (429, "1")
            assert b"this address" in answer.body
        edge.stop()
        assert [(e["status"], e.get("error")) for e in edge.log()] == [(200, None), (429, "limits.per_address")]


def test_an_address_is_counted_however_its_connections_end():
    table, settings = counted(per_address=100, handshake_ms=150, keepalive_ms=150, header_ms=150)
    with serving(echo, **settings) as edge:
        for n in range(24):
            if n % 6 == 0:
                socket.create_connection((HERE, edge.port)).close()
                continue
            client = Client(edge)
            if n % 6 == 1:
                client.ask(get())
                client.ended()              # the keep-alive timeout
            elif n % 6 == 2:
                client.send(get()[:10])
                client.reset()
                continue
            elif n % 6 == 3:
                client.ask(b"X\r\n\r\n")
            elif n % 6 == 4:
                client.send(post(b"x" * 10)[:-3])
                client.cut()
                continue
            else:
                client.ask(get("/", "Connection: close"))
            client.close()
        edge.until_idle()
        assert edge.counters()["connections"] == 24
        assert table.counts(HERE) == (0, 0)


def test_no_table_no_limit():
    settings = {"per_address": 1, "requests_per_address": 1}
    with serving(echo, listener=settings) as edge, Client(edge) as one, Client(edge) as two:
        assert one.ask(get()).status == two.ask(get()).status == 200


def test_a_flood_is_a_line_in_the_log():
    with serving(echo, listener={"max_connections": 1}) as edge, Client(edge):
        until(lambda: edge.counters()["handshakes"] == 1)
        for _ in range(50):
            assert refused(edge)
        assert edge.counters()["connections_over_limit"] == 50
        assert len(told(edge, "limits.connections")) == 1


# ---- requests of a connection

def test_requests_of_a_connection():
    with serving(echo, listener={"max_requests": 3}) as edge:
        for pipelined in (False, True):
            with Client(edge) as client:
                if pipelined:
                    client.send(get() * 5)
                answers = []
                for _ in range(3):
                    if not pipelined:
                        client.send(get())
                    answers.append(client.response())
                assert [a.fields.get("connection") for a in answers] == [None, None, "close"]
                assert client.ended()


def test_requests_of_an_http2_connection():
    with serving(echo, listener={"max_requests": 3}) as edge, H2Client(edge) as client:
        for _ in range(2):
            assert client.ask().status == 200
        assert client.goaways == []
        last = client.get()
        assert client.response(last).status == 200
        client.until(lambda: client.goaways)
        assert client.goaways == [(2**31 - 1, NO_ERROR)]
        late = client.get()                 # it may have been on its way
        assert client.response(late).status == 200
        assert client.end() == (late, NO_ERROR)


# ---- requests, heads and bodies of a route

def two_routes(**limits):
    return lambda group: [Route(group, path="/small/*", **limits), Route(group)]


def asked(edge, protocol, request, path="/small/x", **how):
    """One request on a connection of its own -> its response."""
    with protocol(edge) as client:
        if protocol is Client:
            return client.ask(request(path) if request is get else request)
        return client.ask(path, **how)


@pytest.mark.parametrize("protocol", [Client, H2Client])
def test_head_of_a_route(protocol):
    large = ("X-Large", "x" * 600)
    with serving(echo, routes=two_routes(max_head=512)) as edge:
        for path, field, status in (("/small/x", large, 431), ("/small/x", ("X", "y"), 200), ("/x", large, 200)):
            with protocol(edge) as client:
                if protocol is Client:
                    answer = client.ask(get(path, ": ".join(field)))
                else:
                    answer = client.ask(path, fields=[(field[0].lower(), field[1])])
                assert answer.status == status
        assert edge.counters()["requests_over_limit"] == 1
        edge.stop()
        assert [(e["status"], e.get("error")) for e in edge.log()] == [(431, "limits.head"), (200, None), (200, None)]


def test_length_over_the_limit():
    """The upstream hears nothing of it, and the client that asks first is not told to go on."""
    with serving(echo, routes=two_routes(max_body=100)) as edge:
        with Client(edge) as client:
            answer = client.ask(post(b"", "/small/x").replace(b"Content-Length: 0", b"Content-Length: 101"))
            assert answer.status == 413
            assert client.ended()
        with Client(edge) as client:
            client.send(get("/small/x", "Content-Length: 101", "Expect: 100-continue", method="POST"))
            assert client.head().status == 413
        with H2Client(edge) as client:
            stream = client.post(b"x" * 10, "/small/x", end=False, fields=[("content-length", "101")])
            assert client.response(stream).status == 413
            client.until(lambda: client.responses[stream].reset == NO_ERROR)
            assert client.ask().status == 200
        assert edge.backends[0].accepted == 1
        with Client(edge) as client:
            assert client.ask(post(b"x" * 100, "/small/x")).status == 200
            assert client.ask(post(b"x" * 101, "/x")).status == 200
        assert edge.counters()["requests_over_limit"] == 3
        edge.stop()
        assert [(e["status"], e.get("error")) for e in edge.log()][:3] == [(413, "limits.body")] * 3


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize("pieces", [[101], [100, 1], [50, 51], [1] * 101])
def test_a_body_that_grows_over_the_limit(pieces):
    with serving(echo, routes=two_routes(max_body=100)) as edge:
        with Client(edge) as client:
            client.send(get("/small/x", CHUNKED, method="POST"))
            for n in pieces:
                client.send(chunk(b"x" * n))
            assert client.response().status == 413
            assert client.ended()
        with H2Client(edge) as client:
            stream = client.post(b"", "/small/x", end=False)
            for n in pieces:
                client.send(frame(DATA, 0, stream, b"x" * n))
            assert client.response(stream).status == 413
            client.until(lambda: client.responses[stream].reset == NO_ERROR)
            whole = client.post(b"", "/small/x", end=False)
            client.send(frame(DATA, 0, whole, b"x" * 99), frame(DATA, END_STREAM, whole, b"x"))
            assert client.response(whole).status == 200
        with Client(edge) as client:
            ok = get("/small/x", CHUNKED, method="POST") + chunk(b"x" * 100) + b"0\r\n\r\n"
            assert client.ask(ok).status == 200
        assert edge.counters()["requests_over_limit"] == 2
        edge.stop()
        assert [e.get("error") for e in edge.log()] == ["limits.body"] * 2 + [None] * 2


def test_a_body_that_grows_over_the_limit_after_the_response_began():
    """The response is cut: the client must not take it for whole."""
    def early(conn):
        conn.head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin")
        conn.rest()

    with serving(early, routes=two_routes(max_body=100)) as edge:
        with Client(edge) as client:
            client.send(get("/small/x", CHUNKED, method="POST") + chunk(b"x" * 10))
            assert client.head().status == 200
            assert client.exactly(5) == b"begin"
            client.send(chunk(b"x" * 100))
            with pytest.raises((ssl.SSLError, ConnectionError)):
                client.rest()
        with H2Client(edge) as client:
            stream = client.post(b"x" * 10, "/small/x", end=False)
            client.until(lambda: client.responses[stream].body == b"begin")
            client.send(frame(DATA, 0, stream, b"x" * 100))
            assert client.response(stream).reset is not None
        edge.until_idle()
        counters = edge.counters()
        assert (counters["requests_over_limit"], counters["aborts"], counters["client_aborts"]) == (2, 2, 0)
        edge.stop()
        assert [(e["status"], e["error"]) for e in edge.log()] == [(200, "limits.body")] * 2


def test_requests_of_a_route():
    gate = []
    with serving(held(gate), routes=lambda group: [Route(group, path="/wait*", max_running=2), Route(group)]) as edge:
        with Client(edge) as one, H2Client(edge) as two, Client(edge) as three:
            one.send(get("/wait"))
            waiting = two.get("/wait")
            until(lambda: edge.counters()["requests"] == 2)
            answer = three.ask(get("/wait"))
            assert (answer.status, answer.fields["retry-after"]) == (503, "1")
            assert two.ask("/wait").status == 503
            assert three.ask(get("/x")).status == 200       # another route, on the same connection
            gate.append(True)
            assert one.response().status == two.response(waiting).status == 200
            assert three.ask(get("/wait")).status == 200
        assert edge.counters()["requests_over_limit"] == 2
        edge.stop()
        assert [e["status"] for e in edge.log() if e.get("error") == "limits.requests"] == [503, 503]


def test_requests_that_are_cut_leave_room():
    gate = []
    with serving(held(gate), routes=lambda group: [Route(group, max_running=1)]) as edge:
        for protocol in (Client, H2Client):
            client = protocol(edge)
            if protocol is Client:
                client.send(get("/wait"))
                until(lambda: states(edge)["active"])
                client.reset()
            else:
                client.get("/wait")
                until(lambda: states(edge)["active"])
                client.client.reset()
            edge.until_idle()
        gate.append(True)
        with Client(edge) as client:
            assert client.ask(get("/wait")).status == 200


def test_requests_of_an_address():
    gate = []
    table, settings = counted(requests_per_address=2)
    with serving(held(gate), **settings) as edge, Client(edge) as one, H2Client(edge) as two:
        one.send(get("/wait"))
        waiting = two.get("/wait")
        until(lambda: edge.counters()["requests"] == 2)
        assert table.counts(HERE) == (2, 2)
        answer = two.ask("/x")
        assert (answer.status, answer.fields["retry-after"]) == (429, "1")
        with Client(edge) as three:
            assert three.ask(get()).status == 429
            gate.append(True)
            assert one.response().status == two.response(waiting).status == 200
            assert three.ask(get()).status == 200
        assert table.counts(HERE)[1] == 0
        assert edge.counters()["requests_over_limit"] == 2
        edge.stop()
        assert [e["status"] for e in edge.log() if e.get("error") == "limits.requests_per_address"] == [429, 429]
    assert table.counts(HERE) == (0, 0)
