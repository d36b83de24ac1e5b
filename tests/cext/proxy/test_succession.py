"""Settings that change while connections are there: what has begun keeps what it has, what begins later has the new."""

import contextlib
import gc
import socket
import threading

import pytest
from cext.proxy.listener_settings import ListenerSettings, Quota
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router

from tests.cext.proxy.harness import (
    PROTOCOLS,
    Backend,
    Client,
    H2Client,
    echo,
    get,
    reply,
    serving,
    until,
)
from tests.cext.proxy.hooked import hooks
from tests.cext.tls.peer import server_config


class Successor:
    """Other settings for an edge, with a group and routes of their own."""

    def __init__(self, backend, *routes, **settings):
        self.group = UpstreamGroup("app", [backend.address])
        made = [Route(self.group, **route) for route in routes or [{}]]
        self.router = Router(made, {"app": self.group})
        self.settings = ListenerSettings(server_config(alpn=PROTOCOLS), self.router, **settings)


def become(edge, successor):
    edge.call(lambda: edge.plane.become(edge.door, successor.settings))


def test_every_setting_is_taken_over():
    """What can be read of settings is that of the other, whatever is added to them."""
    others = {
        "handshake_ms": 1, "timeouts": {"header": 2}, "tcp": {"keepalive_idle": 3}, "line_limit": 4, "head_limit": 5,
        "field_limit": 6, "x_forwarded": False, "forwarded": True, "first_record": 7, "first_bytes": 8,
        "record_idle_ms": 9, "h2_streams": 10, "max_connections": 11, "per_address": 12, "max_requests": 13,
        "requests_per_address": 14, "answer_over": True, "unique_header": b"Once", "gate": None, "senders": None,
    }
    group = UpstreamGroup("a", [("tcp", "127.0.0.1", 1)])
    one = ListenerSettings(server_config(), Router([Route(group)]))
    other = ListenerSettings(server_config(), Router([Route(group)]), **others)
    shown = [n for n in dir(one) if not n.startswith("_") and not callable(getattr(one, n))]
    names = [n for n in shown if n not in ("open", "leaving")]
    assert {"tls", "router", "timeouts", "quota", "max_connections", "handshake_ms"} <= set(names)
    differ = [n for n in names if getattr(one, n) != getattr(other, n)]
    assert len(differ) > 12
    one.become(other)
    assert [n for n in names if getattr(one, n) != getattr(other, n)] == []


def test_requests_on_connections_that_are_there():
    with (
        serving(echo) as edge,
        contextlib.closing(Backend(echo)) as other,
        Client(edge) as h1,
        H2Client(edge) as h2,
    ):
        assert h1.ask(get("/a")).status == 200
        assert h2.ask("/a").status == 200
        successor = Successor(other, {"path": "/a"})
        become(edge, successor)
        assert h1.ask(get("/a")).status == 200
        assert h1.ask(get("/b")).status == 404
        assert h2.ask("/b").status == 404
        assert h2.ask("/a").status == 200
        assert other.accepted == 1
        edge.call(successor.group.close_idle)


def test_a_running_request_keeps_its_route_and_limits():
    go_on = threading.Event()

    def slow(conn):
        conn.request()
        go_on.wait(20)
        conn.send(reply(b"late"))

    with (
        serving(slow) as edge,
        contextlib.closing(Backend(echo)) as other,
        Client(edge) as client,
        Client(edge) as second,
    ):
        client.send(get("/"))
        until(lambda: edge.backends[0].accepted == 1)
        become(edge, Successor(other, {"path": "/new"}, timeouts={"first_byte": 50, "total": 60}))
        assert second.ask(get("/")).status == 404
        go_on.set()
        assert client.response().body == b"late"


def test_nothing_of_the_settings_before_is_kept():
    def routers():
        gc.collect()
        return sum(type(o) is Router for o in gc.get_objects())

    with (
        serving(echo) as edge,
        contextlib.closing(Backend(echo)) as other,
        Client(edge) as idle,
        H2Client(edge) as idle2,
    ):
        assert idle.ask(get("/")).status == 200
        assert idle2.ask("/").status == 200
        before = routers()
        for _ in range(5):
            become(edge, Successor(other))
        assert routers() == before
        assert idle.ask(get("/")).status == 200
        edge.call(lambda: [group.close_idle() for group in edge.door.settings.router.upstreams.values()])


def test_connections_count_for_the_limit_that_comes():
    with serving(echo) as edge, contextlib.closing(Backend(echo)) as other:
        clients = [Client(edge) for _ in range(3)]
        successor = Successor(other, max_connections=4)
        become(edge, successor)
        assert successor.settings.quota.open == 3
        fourth = Client(edge)               # none of them is idle: those would give way
        with pytest.raises(OSError):
            Client(edge)
        for client in (*clients, fourth):
            client.close()
        edge.until_idle()
        assert successor.settings.quota.open == 0
        edge.call(successor.group.close_idle)


def test_a_quota_of_several_addresses_goes_by_all_of_them():
    group = UpstreamGroup("a", [("tcp", "127.0.0.1", 1)])
    quota = Quota()
    one, other = (ListenerSettings(server_config(), Router([Route(group)]), quota=quota) for _ in range(2))
    assert one.quota is other.quota is quota


def test_a_route_goes_on_counting():
    go_on = threading.Event()

    def slow(conn):
        while True:
            conn.request()
            go_on.wait(20)
            conn.send(reply(b"late"))

    with (
        serving(slow, max_running=1) as edge,
        contextlib.closing(Backend(echo)) as other,
        Client(edge) as client,
        Client(edge) as second,
    ):
        client.send(get("/"))
        until(lambda: edge.backends[0].accepted == 1)
        before = edge.door.settings.router.routes[0]
        successor = Successor(other, {"max_running": 1, "load": before.load})
        become(edge, successor)
        assert second.ask(get("/")).status == 503
        go_on.set()
        assert client.response().status == 200
        assert second.ask(get("/")).status == 200
        edge.call(successor.group.close_idle)


def test_an_address_that_is_left():
    """What is queued is served, idle connections end, running requests are finished, others go on elsewhere."""
    go_on = threading.Event()

    def slow(conn):
        conn.request()
        go_on.wait(20)
        conn.send(reply(b"late"))

    with serving(slow) as edge, contextlib.closing(Backend(echo)) as other:
        successor = Successor(other)
        second = socket.create_server(("127.0.0.1", 0))
        second.setblocking(False)
        door = edge.call(lambda: edge.plane.listen(second.fileno(), successor.settings))

        class There:
            port = second.getsockname()[1]

        with Client(There) as idle, H2Client(There) as h2, Client(edge) as elsewhere:
            assert idle.ask(get("/")).status == 200
            assert h2.ask("/").status == 200
            fresh = Client(There)
            edge.call(lambda: edge.plane.leave(door))
            second.close()
            assert fresh.ask(get("/")).fields["connection"] == "close"
            fresh.close()
            assert idle.ended()
            assert h2.end() == (1, 0)
            elsewhere.send(get("/"))
            go_on.set()
            response = elsewhere.response()
            assert (response.status, response.fields.get("connection")) == (200, None)
        edge.call(successor.group.close_idle)


def test_a_group_that_nobody_chooses_closes_what_becomes_idle():
    go_on = threading.Event()

    def slow(conn):
        while True:
            conn.request()
            go_on.wait(20)
            conn.send(reply(b"late"))

    with serving(slow) as edge, Client(edge) as client, Client(edge) as second:
        client.send(get("/"))
        second.send(get("/"))
        until(lambda: edge.backends[0].accepted == 2)
        edge.call(edge.group.retire)
        go_on.set()
        assert client.response().status == second.response().status == 200
        until(lambda: edge.call(edge.group.idle_connections) == 0)


def test_hooks_take_the_place_of_others():
    told = []

    def of(name):
        return hooks(
            lambda request: request.respond(200, body=name),
            connection_state=lambda connection, old, new: told.append((name, connection, new)),
        )

    with serving(echo, hooks=of("one")) as edge, Client(edge) as client:
        assert client.ask(get("/")).body == b"one"
        edge.call(lambda: setattr(edge.plane, "hooks", of("two")))
        assert client.ask(get("/")).body == b"two"
        edge.call(lambda: setattr(edge.plane, "hooks", None))
        assert client.ask(get("/")).status == 200
        edge.call(lambda: setattr(edge.plane, "hooks", of("three")))
        client.close()
        edge.until_idle()
    assert [(name, new) for name, _, new in told] == [
        ("one", "new"), ("one", "active"), ("one", "idle"),
        ("two", "active"), ("two", "idle"),
        ("three", "closed"),
    ]
    assert len({id(connection) for name, connection, _ in told if name != "three"}) == 1, "the same object"


def test_limits_of_the_process():
    with serving(echo) as edge:
        def change():
            edge.plane.memory_limit = 1 << 40
            edge.plane.hook_timeout = 77
            return edge.plane.memory_limit, edge.plane.hook_timeout

        assert edge.call(change) == (1 << 40, 77)
