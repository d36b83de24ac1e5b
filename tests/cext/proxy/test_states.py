"""The states of a client's connection: each step once, each a legal one, and gauges that add up."""

import contextlib
import socket
import ssl
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import CONTEXT, Client, H2Client, echo, get, post, reply, serving, until
from tests.h2_peer import DATA, END_STREAM, HEADERS, PING, frame, reset

LEGAL = {
    None: {"new"},
    "new": {"active", "closed"},
    "active": {"idle", "hijacked", "closed"},
    "idle": {"active", "closed"},
    "hijacked": {"closed"},
    "closed": set(),
}


class Watched:
    """What an edge's connections went through, in the order of their beginning."""

    def __init__(self, edge):
        self.edge = edge
        self.steps = {}                     # connection -> its states
        edge.call(self.begin)

    def begin(self):
        self.edge.plane.state_observer = self.step

    def step(self, connection, old, new):
        states = self.steps.setdefault(connection, [])
        assert old == (states[-1] if states else None)
        states.append(new)

    def paths(self):
        return [" ".join(states) for states in self.steps.values()]

    def check(self):
        """That every path is legal and has ended, and that the counters tell the same."""
        self.edge.until_idle()
        self.edge.counters()                # what closed in this turn has told the observer by then
        counters = self.edge.counters()
        entered = dict.fromkeys(LEGAL.keys() - {None}, 0)
        for states in self.steps.values():
            for old, new in zip([None, *states], states, strict=False):
                assert new in LEGAL[old], states
                entered[new] += 1
            assert states[-1] == "closed"
        for state, count in entered.items():
            assert counters[f"became_{state}"] == count
            assert counters.get(f"connections_{state}", 0) == 0
        assert counters["connections"] == entered["new"]


@contextlib.contextmanager
def watched(script=echo, **settings):
    with serving(script, **settings) as edge:
        watch = Watched(edge)
        yield edge, watch
        watch.check()
        assert [e for e in edge.errors if "connection_state" in e[1]] == []


def now(edge):
    counters = edge.counters()
    states = {name: counters[f"connections_{name}"] for name in ("new", "active", "idle", "hijacked")}
    assert sum(states.values()) == counters["connections_open"]
    return {name: n for name, n in states.items() if n}


def test_http1():
    with watched() as (edge, watch):
        with Client(edge) as client:
            until(lambda: now(edge) == {"new": 1})
            client.ask(get())
            until(lambda: now(edge) == {"idle": 1})
            client.send(b"\r\n")            # no byte of a request yet
            client.send(get()[:9])
            until(lambda: now(edge) == {"active": 1})
            client.send(get()[9:] + get())
            client.response()
            client.response()
            until(lambda: now(edge) == {"idle": 1})
        edge.until_idle()
        assert watch.paths() == ["new active idle active idle active idle closed"]


def test_http2():
    with watched() as (edge, watch):
        with H2Client(edge) as client:
            client.until(lambda: client.acks)
            assert now(edge) == {"new": 1}
            client.ask()
            until(lambda: now(edge) == {"idle": 1})
            one, two = client.get(), client.get()
            client.response(one)
            client.response(two)
            until(lambda: now(edge) == {"idle": 1})
        edge.until_idle()
        [path] = watch.paths()
        assert path in ("new active idle active idle closed", "new active idle active idle active idle closed")


def test_http2_is_active_while_it_has_streams():
    def slow(conn):
        while True:
            request = conn.request()
            if request.start.startswith("GET /slow"):
                until(lambda: go)
            conn.send(reply())

    go = []
    with watched(slow) as (edge, watch), H2Client(edge) as client:
        waits = client.get("/slow")
        client.ask("/fast")
        assert now(edge) == {"active": 1}
        go.append(True)
        client.response(waits)
        until(lambda: now(edge) == {"idle": 1})
        client.sock.close()
        edge.until_idle()
        assert watch.paths() == ["new active idle closed"]


@pytest.mark.parametrize("sent", [None, b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_never_shakes_hands_was_new(sent):
    with watched() as (edge, watch):
        with socket.create_connection(("127.0.0.1", edge.port)) as tcp:
            until(lambda: now(edge) == {"new": 1})
            if sent:
                tcp.sendall(sent)
            with contextlib.suppress(OSError):
                tcp.shutdown(socket.SHUT_WR)
                tcp.recv(100)
        edge.until_idle()
        assert watch.paths() == ["new closed"]


@pytest.mark.parametrize("request_", [get("/", "Connection: close"), b"GARBAGE\r\n\r\n", get(method="CONNECT")])
def test_the_last_request(request_):
    with watched() as (edge, watch), Client(edge) as client:
        client.ask(request_)
        assert client.ended()
        client.close()
        edge.until_idle()
        assert watch.paths() == ["new active closed"]


def test_cut_in_the_middle():
    with watched() as (edge, watch):
        client = Client(edge)
        client.send(post(b"x" * 10)[:-3])
        until(lambda: now(edge) == {"active": 1})
        client.reset()
        edge.until_idle()
        assert watch.paths() == ["new active closed"]


def test_an_observer_that_fails_is_told_of():
    with serving(echo) as edge:
        def fail(*_):
            raise RuntimeError("no")

        edge.call(lambda: setattr(edge.plane, "state_observer", fail))
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        edge.until_idle()
        assert ("error", "connection_state: RuntimeError('no')") in edge.errors


def test_a_tunnel_is_hijacked():
    with watched(several, upgrade=["raw/1"]) as (edge, watch), Client(edge) as client:
        client.ask(get())
        client.send(UPGRADE)
        assert client.head().status == 101
        client.send(b"ping")
        assert client.exactly(4) == b"ping"
        until(lambda: now(edge) == {"hijacked": 1})
        client.close()
        edge.until_idle()
        assert watch.paths() == ["new active idle active hijacked closed"]


# ---- whatever a client does

UPGRADE = get("/raw", "Connection: upgrade", "Upgrade: raw/1")


def several(conn):
    """Answers /cut by closing, /wait after a while, an upgrade by echoing, all else at once."""
    while True:
        request = conn.request()
        path = request.start.split()[1]
        if path == "/cut":
            return
        if path == "/wait":
            time.sleep(0.02)
        if "upgrade" in request.fields:
            conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")
            while got := conn.sock.recv(4096):
                conn.send(got)
            return
        conn.send(reply(request.body))


def http1(client, acts):
    """Plays acts on a connection of HTTP/1.1; what the edge refuses or ends is the client's own fault."""
    for act in acts:
        if act == "read":
            client.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                client.sock.recv(65536)
        elif act == "pause":
            time.sleep(0.08)                # longer than every limit of the client's
        elif act == "half":
            client.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                client.sock.unwrap()
            return
        else:
            client.send(act)


HTTP1_ACTS = [
    "read", "read", "pause", "half",
    get(), get("/wait"), get("/cut"), get() * 3, get()[:9], get()[9:], b"\r\n", b"nonsense\r\n\r\n",
    post(b"x" * 5), post(b"x" * 5)[:-2], get("/", "Connection: close"), get(version="1.0"), UPGRADE, b"bytes",
    get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n", b"0\r\n\r\n",
]


def http2(client, acts):
    for act in acts:
        if act == "read":
            client.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                client.step()
        elif act == "pause":
            time.sleep(0.08)
        elif act == "half":
            client.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                client.sock.unwrap()
            return
        else:
            HTTP2_SENT[act](client, max(client.next_stream - 2, 1))


HTTP2_SENT = {
    "get": lambda client, _: client.get("/wait"),
    "several": lambda client, _: [client.get(path) for path in ("/", "/cut", "/wait")],
    "post": lambda client, _: client.post(b"x" * 10, end=False),
    "end": lambda client, stream: client.send(frame(DATA, END_STREAM, stream)),
    "reset": lambda client, stream: client.send(reset(stream)),
    "bad request": lambda client, _: client.send(client.head(client.stream(), [(":method", "GET")])),
    "part of a head": lambda client, _: client.send(frame(HEADERS, END_STREAM, client.stream(), b"")),
    "ping": lambda client, _: client.send(frame(PING, payload=b"12345678")),
    "nonsense": lambda client, _: client.send(b"\xff" * 20),
}
HTTP2_ACTS = ["read", "read", "read", "pause", "half", *HTTP2_SENT]

CONNECTIONS = st.one_of(
    st.tuples(st.just("tcp"), st.sampled_from([b"", b"\x16", b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n"])),
    st.tuples(st.just("http1"), st.lists(st.sampled_from(HTTP1_ACTS), max_size=6)),
    st.tuples(st.just("http2"), st.lists(st.sampled_from(HTTP2_ACTS), max_size=6)),
)
ENDS = st.sampled_from(["close", "reset", "cut", "stay"])
HASTY = {"handshake_ms": 50, "header_ms": 50, "keepalive_ms": 50, "body_idle_ms": 50}


def play(edge, kind, acts, end, staying):
    if kind == "tcp":
        tcp = socket.create_connection(("127.0.0.1", edge.port), 8)
        tcp.sendall(acts)
        staying.append(tcp) if end == "stay" else tcp.close()
        return
    client = Client(edge, context=CONTEXT) if kind == "http1" else H2Client(edge)
    below = client if kind == "http1" else client.client
    with contextlib.suppress(OSError, EOFError, ssl.SSLError):
        (http1 if kind == "http1" else http2)(client, acts)
    if end == "stay":
        staying.append(below.sock)
    else:
        with contextlib.suppress(OSError):
            {"close": below.close, "reset": below.reset, "cut": below.cut}[end]()


@pytest.fixture(scope="module")
def both():
    """An edge without limits and one with few connections of few requests, and what they have gone through."""
    limits = {"max_connections": 3, "max_requests": 2, "answer_over": True}
    route = {"body_idle_ms": 50, "tunnel_idle_ms": 50, "write_idle_ms": 200, "upgrade": ["raw/1"]}
    with (
        watched(several, listener=HASTY, **route) as free,
        watched(several, listener={**HASTY, **limits}, **route) as limited,
    ):
        yield free, limited


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(limited=st.booleans(), script=st.lists(st.tuples(CONNECTIONS, ENDS), min_size=1, max_size=4))
def test_whatever_clients_do(both, limited, script):
    """Every connection's steps are a legal path that ends, and the counters tell the same as the observer."""
    edge, watch = both[limited]
    staying = []
    for (kind, acts), end in script:
        with contextlib.suppress(OSError):                  # refused: the limit
            play(edge, kind, acts, end, staying)
    now(edge)
    watch.check()
    for sock in staying:
        sock.close()


@pytest.mark.parametrize("when", [0, 0.01, 0.03])
def test_a_worker_that_drains(when):
    """Connections in every state, of both protocols; after the drain all have closed, each once."""
    with watched(several, upgrade=["raw/1"]) as (edge, watch):
        clients = [Client(edge) for _ in range(4)]
        clients[0].ask(get())
        clients[1].send(get("/wait"))
        clients[2].send(get()[:9])
        h2 = [H2Client(edge) for _ in range(3)]
        h2[0].ask()
        h2[1].get("/wait")
        tunnel = Client(edge)
        tunnel.send(UPGRADE)
        tcp = socket.create_connection(("127.0.0.1", edge.port))
        time.sleep(when)
        edge.call(lambda: edge.plane.drain(600))
        assert edge.ended.wait(8)
        counters = edge.plane.counters()
        assert counters["connections_open"] == 0
        assert len(watch.steps) == counters["connections"] >= 8
        for client in (*clients, tunnel):
            client.close()
        for client in h2:
            client.client.close()
        tcp.close()
