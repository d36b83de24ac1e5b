"""Requests in traces: the context that goes upstream, the records of spans, and whose word counts."""

import contextlib
import re
import socket
import time

import pytest
from cext.proxy.trace import TraceSettings
from hypothesis import given
from hypothesis import strategies as st

from edge.observe import spans
from tests.cext.proxy.harness import Backend, Client, Edge, H2Client, echo, get, post, reply, serving, until
from tests.cext.proxy.hooked import directed
from tests.cext.proxy.test_directing import Each, protocol
from tests.cext.proxy.test_h2_upstream import H2C, origin
from tests.cext.proxy.test_tunnel import Peer, websocket
from tests.cext.proxy.test_tunnel import echoing as tunnelling

__all__ = ["protocol"]                          # a fixture

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
CONTEXT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Heads:
    """A backend's script that keeps the heads of requests."""

    def __init__(self, answer=None):
        self.heads = []
        self.answer = answer or reply()

    def __call__(self, conn):
        while True:
            self.heads.append(conn.request())
            conn.send(self.answer)

    def context(self, at=-1):
        """(trace id, parent id, flags) that arrived."""
        return CONTEXT.fullmatch(self.heads[at].fields["traceparent"]).groups()


class Taken(list):
    """What the data plane hands over."""

    full = False

    def __call__(self, batch):
        if self.full:
            return False
        self.append(batch)
        return True

    def requests(self):
        return [request for batch in list(self) for request in spans.read(batch)]

    def wait(self, n=1):
        until(lambda: len(self.requests()) >= n)
        return self.requests()


@contextlib.contextmanager
def tracing(*scripts, ratio=1.0, trust=False, query=False, **settings):
    taken = Taken()
    with serving(*scripts, **settings) as edge:
        edge.taken = taken
        edge.call(lambda: edge.plane.trace(TraceSettings(ratio, trust, query), taken))
        yield edge


# ---- the context that goes on ----

def test_a_trace_begins_here(protocol):
    backend = Heads()
    with tracing(backend) as edge, Each(edge, protocol) as client:
        for path in ("/a", "/b"):
            assert client.ask(path)[0] == 200
        one, two = edge.taken.wait(2)
    assert [backend.context(0), backend.context(1)] == [
        (r.trace_id.hex(), r.attempts[0].span_id.hex(), "03") for r in (one, two)]
    assert one.flags & spans.PARENT == 0
    assert len({one.trace_id, two.trace_id}) == len({one.span_id, two.span_id}) == 2
    assert one.span_id != one.attempts[0].span_id


@pytest.mark.parametrize("trust", [True, [("127.0.0.0", 8)]], ids=["all", "network"])
def test_a_trusted_clients_trace_goes_on(protocol, trust):
    backend = Heads()
    with tracing(backend, ratio=0.0, trust=trust) as edge, Each(edge, protocol) as client:
        client.ask("/", [("traceparent", SAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2")])
        [request] = edge.taken.wait()
    assert (request.trace_id.hex(), request.parent_id.hex()) == (TRACE, PARENT)
    assert request.flags & spans.PARENT
    assert backend.context() == (TRACE, request.attempts[0].span_id.hex(), "01")
    assert backend.heads[0].fields["tracestate"] == "a=1,b=2"


def test_a_trusted_client_decides_what_is_sampled():
    backend = Heads()
    with tracing(backend, ratio=1.0, trust=True) as edge, Client(edge) as client:
        client.ask(get("/no", f"traceparent: {UNSAMPLED}"))
        client.ask(get("/none"))
        [request] = edge.taken.wait()
    trace, span, flags = backend.context(0)
    assert (trace, flags) == (TRACE, "00") and span != PARENT
    assert request.path == "/none"
    assert edge.log()[0].get("trace") is None
    assert edge.log()[1]["trace"] == request.trace_id.hex()


@pytest.mark.parametrize("trust", [False, [("192.0.2.0", 24), ("2001:db8::", 32)], []], ids=["none", "others", "empty"])
def test_a_strangers_context_is_dropped(protocol, trust):
    backend = Heads()
    with tracing(backend, trust=trust) as edge, Each(edge, protocol) as client:
        client.ask("/", [("traceparent", SAMPLED), ("tracestate", "a=1")])
        [request] = edge.taken.wait()
    assert request.trace_id.hex() != TRACE and request.flags & spans.PARENT == 0
    assert backend.context()[0] == request.trace_id.hex()
    assert "tracestate" not in backend.heads[0].fields


def test_a_context_that_is_none_begins_a_trace_without_its_state():
    backend = Heads()
    with tracing(backend, trust=True) as edge, Client(edge) as client:
        client.ask(get("/", f"traceparent: {SAMPLED.upper()}", "tracestate: a=1"))
        client.ask(get("/", f"traceparent: {SAMPLED}", f"traceparent: {UNSAMPLED}"))
        assert all(request.trace_id.hex() != TRACE for request in edge.taken.wait(2))
    assert "tracestate" not in backend.heads[0].fields


def test_without_traces_fields_pass_as_they_came(protocol):
    backend = Heads()
    with serving(backend) as edge, Each(edge, protocol) as client:
        client.ask("/", [("traceparent", "any thing"), ("tracestate", "= ,,")])
        client.ask("/")
    assert (backend.heads[0].fields["traceparent"], backend.heads[0].fields["tracestate"]) == ("any thing", "= ,,")
    assert "traceparent" not in backend.heads[1].fields


def test_settings_that_change_hold_from_the_next_request_on():
    backend = Heads()
    with tracing(backend) as edge, Client(edge) as client:
        client.ask(get("/on"))
        edge.call(lambda: edge.plane.trace(None))
        client.ask(get("/off", f"traceparent: {SAMPLED}"))
        edge.call(lambda: edge.plane.trace(TraceSettings(0.0, True)))
        client.ask(get("/again", f"traceparent: {SAMPLED}"))
        assert [request.path for request in edge.taken.wait(2)] == ["/on", "/again"]
    assert backend.heads[1].fields["traceparent"] == SAMPLED
    assert backend.context(2)[0] == TRACE


# ---- sampling ----

@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_all_traces(ratio):
    n = 2000

    def counting(conn):
        left = b""
        while got := conn.sock.recv(65536):
            left += got
            heads.extend(left.split(b"\r\n\r\n")[:-1])
            conn.send(reply() * left.count(b"\r\n\r\n"))
            left = left[left.rfind(b"\r\n\r\n") + 4 :]

    heads = []
    with tracing(counting, ratio=ratio) as edge, Client(edge) as client:
        for _ in range(n // 100):
            client.send(get() * 100)
            for _ in range(100):
                assert client.response().status == 200
    sampled = len(edge.taken.requests())        # all of them: what waited was handed over at the end
    assert edge.counters()["spans"] == sampled
    flags = [CONTEXT.search(head.decode())[3] for head in heads]
    assert flags.count("03") == sampled and flags.count("02") == n - sampled
    assert len({CONTEXT.search(head.decode())[1] for head in heads}) == n, "each has an id of its own"
    assert abs(sampled - ratio * n) <= 5 * (n * ratio * (1 - ratio)) ** 0.5     # 5 standard deviations


def test_ratios_that_are_none():
    for ratio in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="ratio"):
            TraceSettings(ratio)
    with pytest.raises(ValueError, match="network"):
        TraceSettings(1, [("127.0.0.1", 33)])


# ---- what a record tells ----

def test_the_facts_of_a_request(protocol):
    with tracing(echo) as edge, Each(edge, protocol) as client:
        before = time.time_ns()
        status, _, body = client.ask("/path?secret=1", method="POST", body=b"x" * 100)
        [request] = edge.taken.wait()
    assert status == 200
    [attempt] = request.attempts
    assert (request.method, request.host, request.path, request.query) == ("POST", "example.com", "/path", "")
    assert (request.status, request.error, request.route, request.upstream) == (200, "", "/*", "app")
    assert (request.client, request.server_name) == ("127.0.0.1", "example.com")
    assert (request.http, request.tls) == (20 if protocol == "2" else 11, 0x0304)
    assert request.bytes_in >= 100 and request.bytes_out >= len(body)
    assert abs(request.start - before) < 30e9
    assert 0 <= attempt.began <= attempt.connected <= attempt.first_byte <= attempt.ended <= request.duration
    assert request.first_byte == attempt.first_byte
    assert (attempt.status, attempt.error, attempt.flags) == (200, "", 0)
    assert attempt.server == f"127.0.0.1:{edge.backends[0].address[2]}"


def test_the_query_where_it_is_wanted():
    with tracing(echo, query=True) as edge, Client(edge) as client:
        client.ask(get("/path?a=1&b=2"))
        client.ask(get("/path?"))
        client.ask(get("/" + "p" * 3000 + "?" + "q" * 3000))
        one, none, long = edge.taken.wait(3)
    assert (one.path, one.query, none.query) == ("/path", "a=1&b=2", "")
    assert (long.path, long.query) == ("/" + "p" * 1023, "q" * 1024)


def test_what_is_answered_here():
    with tracing(echo, routes=lambda group: []) as edge, Client(edge) as client:
        assert client.ask(get("/nowhere")).status == 404
        [request] = edge.taken.wait()
    assert (request.status, request.route, request.upstream, request.attempts) == (404, "", "", ())


def test_http_1_0():
    with tracing(Heads(), trust=True) as edge, Client(edge) as client:
        client.ask(f"GET / HTTP/1.0\r\ntraceparent: {SAMPLED}\r\n\r\n".encode())
        [request] = edge.taken.wait()
    assert (request.http, request.trace_id.hex()) == (10, TRACE)


def test_a_client_that_leaves():
    def silent(conn):
        conn.request()
        conn.sock.recv(1)

    with tracing(silent) as edge:
        with Client(edge) as client:
            client.send(get("/left"))
            until(lambda: edge.counters()["requests"] == 1)
        [request] = edge.taken.wait()
    assert (request.status, request.first_byte) == (0, 0)
    assert request.error and request.attempts[0].error == request.error


# ---- attempts ----

def test_each_server_that_is_asked_is_a_span():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = ("tcp", *listener.getsockname())
    good = Heads()
    backend = Backend(good)
    taken = Taken()
    edge = Edge(nobody, backend)
    try:
        edge.call(lambda: edge.plane.trace(TraceSettings(1.0), taken))
        with Client(edge) as client:
            assert client.ask(get()).status == 200
            assert client.ask(get()).status == 200
            two = next(request for request in taken.wait(2) if len(request.attempts) == 2)
        refused, served = two.attempts
        assert (refused.error, refused.connected, refused.server) == ("connect", 0, f"127.0.0.1:{nobody[2]}")
        assert (served.error, served.status) == ("", 200)
        assert refused.ended <= served.began
        assert refused.span_id != served.span_id
        assert served.span_id.hex() in [good.context(i)[1] for i in range(len(good.heads))]
        edge.until_idle()
        edge.close()
    finally:
        edge.stop()
        backend.close()


def test_a_request_that_is_sent_again_has_another_parent(protocol):
    """A kept connection that its server closes as the request arrives."""
    heads = []

    def once(conn):
        heads.append(conn.request())
        conn.send(reply())
        if conn.number == 0:
            heads.append(conn.request())        # and closes without a word
        else:
            heads.append(conn.request())
            conn.send(reply())

    with tracing(once, trust=True) as edge, Each(edge, protocol) as client:
        assert client.ask("/first")[0] == 200
        assert client.ask("/second", [("traceparent", SAMPLED), ("tracestate", "a=1")])[0] == 200
        second = edge.taken.wait(2)[1]
    lost, served = second.attempts
    assert (lost.error, lost.flags, lost.status) == ("closed", spans.REUSED, 0)
    assert (served.error, served.flags, served.status) == ("", 0, 200)
    assert [CONTEXT.fullmatch(head.fields["traceparent"])[2] for head in heads[1:3]] == [
        lost.span_id.hex(), served.span_id.hex()]
    assert heads[1].fields["tracestate"] == heads[2].fields["tracestate"] == "a=1"


def test_no_more_than_eight_attempts_are_told():
    with contextlib.ExitStack() as held:
        closed = []
        for _ in range(12):
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            closed.append(("tcp", *listener.getsockname()))
    taken = Taken()
    edge = Edge(*closed)
    try:
        edge.call(lambda: edge.plane.trace(TraceSettings(1.0), taken))
        with Client(edge) as client:
            assert client.ask(get()).status == 503
        [request] = taken.wait()
        assert (len(request.attempts), request.error, request.status) == (8, "connect failed", 503)
        assert len({attempt.span_id for attempt in request.attempts}) == 8
        edge.until_idle()
        edge.close()
    finally:
        edge.stop()


def test_upstreams_of_http_2():
    seen = []

    def answer(origin, stream, request):
        seen.append(dict(request.fields))
        origin.respond(stream, b"ok")

    with tracing(origin(answer), trust=True, pool=H2C) as edge, Client(edge) as client:
        assert client.ask(get("/", f"TraceParent: {SAMPLED}", "TraceState: a=1")).status == 200
        [request] = edge.taken.wait()
    assert seen[0]["traceparent"] == f"00-{TRACE}-{request.attempts[0].span_id.hex()}-01"
    assert seen[0]["tracestate"] == "a=1"


# ---- tunnels, hooks ----

def test_a_tunnel_is_over_when_its_ends_are():
    with tracing(tunnelling) as edge, Peer(edge) as client:
        client.tcp.sendall(client.records(websocket()))
        assert client.head().status == 101
        client.tcp.sendall(client.records(b"hello"))
        assert client.exactly(5) == b"hello"
        assert edge.taken.requests() == []
        client.tcp.sendall(client.close_notify())
        [request] = edge.taken.wait()
    assert (request.status, request.error) == (101, "")
    assert request.bytes_out >= 5
    assert request.attempts[0].ended == request.duration


def test_a_request_that_a_hook_changes_stays_in_its_trace(protocol):
    backend, taken = Heads(), Taken()

    def director(request):
        request.headers["traceparent"] = "is ours to say"
        request.path = "/changed"

    with directed(director, backend) as edge, Each(edge, protocol) as client:
        edge.call(lambda: edge.plane.trace(TraceSettings(0.0, True), taken))
        assert client.ask("/asked", [("traceparent", SAMPLED)])[0] == 200
        [request] = taken.wait()
    assert (request.trace_id.hex(), request.parent_id.hex(), request.path) == (TRACE, PARENT, "/asked")
    assert backend.heads[0].start.split()[1] == "/changed"
    assert backend.context() == (TRACE, request.attempts[0].span_id.hex(), "01")


# ---- whoever takes the records ----

def test_what_nobody_takes_is_counted():
    with tracing(echo) as edge, H2Client(edge) as client:
        edge.taken.full = True
        for _ in range(3):
            client.ask("/lost")
        until(lambda: edge.counters()["spans_dropped"] == 3)
        edge.taken.full = False
        client.ask("/told")
        until(lambda: edge.counters()["spans"] == 1)
        assert [request.path for request in edge.taken.requests()] == ["/told"]


def test_batches_stay_small():
    with tracing(echo) as edge, Client(edge) as client:
        path = "/" + "p" * 1500
        for _ in range(10):
            client.send(get(path) * 10)
            for _ in range(10):
                client.response()
        edge.taken.wait(100)
    assert all(len(batch) < 16384 + 8448 for batch in edge.taken)
    assert len(edge.taken) < 100


def test_what_waits_is_handed_over_at_the_end():
    with tracing(echo) as edge, Client(edge) as client:
        client.ask(get())
        client.close()
        edge.until_idle()
    assert len(edge.taken.requests()) == 1


# ---- records, read ----


@pytest.fixture(scope="module")
def records():
    with tracing(echo, trust=True, query=True) as edge, Client(edge) as client:
        client.ask(post(b"x", "/a?b", f"traceparent: {SAMPLED}"))
        client.ask(get("/c"))
        edge.taken.wait(2)
        return b"".join(edge.taken)


def test_records_that_are_cut_or_followed_by_something(records):
    whole = list(spans.read(records))
    assert spans.number(records) == len(whole) == 2
    first = 2 + int.from_bytes(records[:2])
    for end in set(range(len(records))) - {0, first}:
        with pytest.raises(spans.RecordError):
            list(spans.read(records[:end]))
    assert list(spans.read(records[:first])) == whole[:1]
    for at in range(1, first - 1):              # the record says another length than it has
        with pytest.raises(spans.RecordError):
            list(spans.read((first - 2 - at).to_bytes(2) + records[2:first]))
    with pytest.raises(spans.RecordError):
        list(spans.read((first - 1).to_bytes(2) + records[2:first] + b"\x00"))


@given(st.binary(max_size=400), st.integers(0, 400))
def test_noise_is_no_record(records, noise, at):
    for batch in (noise, records[:at] + noise + records[at:], records[:at] + noise):
        with contextlib.suppress(spans.RecordError):
            for request in spans.read(batch):
                assert len(request.attempts) <= spans.ATTEMPTS_MOST
