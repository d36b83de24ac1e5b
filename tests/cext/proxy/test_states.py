"""The states of a client's connection: each step once, each a legal one, and gauges that add up."""

import contextlib
import socket

import pytest

from tests.cext.proxy.harness import Client, H2Client, echo, get, post, reply, serving, until

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
