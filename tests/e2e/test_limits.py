"""Limits over several worker processes: what one address has is counted in all of them, also when one is killed."""

import contextlib
import os
import signal
import socket
import ssl
import threading

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import wait_until
from tests.e2e.scripted import OK


def from_address(edge, address: str) -> Client:
    """A client whose address is another one of the loopback network."""
    client = Client.__new__(Client)
    client.received = b""
    client.raw = socket.socket()
    try:
        client.raw.settimeout(5)
        client.raw.bind((address, 0))
        client.raw.connect(("127.0.0.1", edge.port))
        context = edge.tls_context()
        client.sock = context.wrap_socket(client.raw, server_hostname="edge.test", suppress_ragged_eofs=False)
    except BaseException:
        client.raw.close()
        raise
    return client


def served(edge, address: str = "127.0.0.1") -> Client | None:
    """A connection whose request was answered with 200; None when it was closed at once."""
    try:
        client = from_address(edge, address)
    except (ConnectionError, ssl.SSLError):
        return None
    try:
        assert client.get("/ok").status == 200
    except BaseException:
        client.close()
        raise
    return client


def as_many_as_go(edge, tries: int, address: str = "127.0.0.1") -> list[Client]:
    return [client for client in (served(edge, address) for _ in range(tries)) if client]


def close_all(clients) -> None:
    for client in clients:
        client.close()


def test_an_address_in_all_workers(make_edge, backend):
    """12 connections of one address, wherever the kernel sends them; another address has its own 12."""
    edge = make_edge({"b": [backend.server]}, server={"workers": 3}, listener={"limits": {"per_address": 12}})
    clients = as_many_as_go(edge, 40)
    assert len(clients) == 12
    others = as_many_as_go(edge, 30, "127.0.0.7")
    assert len(others) == 12
    assert "limits.per_address" in edge.wait_error("connection refused")
    assert len([1 for level, text in edge.errors() if "connection refused" in text]) <= 6  # 46 in 3 workers
    assert all(client.get("/ok").status == 200 for client in clients)
    close_all(clients[:5])
    again = take_places(edge, 5)
    assert as_many_as_go(edge, 10) == []
    close_all((*clients[5:], *again, *others))


def test_a_worker_that_is_killed_gives_its_places_back(make_edge, backend):
    edge = make_edge({"b": [backend.server]}, server={"workers": 2}, listener={"limits": {"per_address": 20}})
    for _ in range(3):
        clients = as_many_as_go(edge, 25)
        assert len(clients) == 20
        kill_a_worker(edge)
        alive = [client for client in clients if still_serves(client)]
        assert 0 < len(alive) < 20
        more = take_places(edge, 20 - len(alive))
        assert as_many_as_go(edge, 10) == []
        close_all((*clients, *more))
        close_all(take_places(edge, 1))


def kill_a_worker(edge) -> None:
    victim = edge.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(edge.workers()) == 2 and victim not in edge.workers(), 10, "its successor")


def take_places(edge, number: int) -> list[Client]:
    """That many connections, as soon as they may be."""
    clients: list[Client] = []
    wait_until(lambda: clients.extend(as_many_as_go(edge, 1)) or len(clients) == number, 10, f"{number} places")
    return clients


def holding(backend) -> threading.Event:
    """/wait is answered when the event is set."""
    hold = threading.Event()

    def wait(connection, request):
        hold.wait(20)
        connection.send(OK)
        return True

    backend.on("/wait", wait)
    return hold


TCP_ESTABLISHED = 1


def still_serves(client: Client) -> bool:
    """Asked of TCP first: of OpenSSL 3.5, a write that fails makes those on other connections fail, too."""
    state = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == TCP_ESTABLISHED and client.get("/ok").status == 200


def test_a_reload_forgets_nobody(make_edge, backend):
    """Connections of the old generation count for as long as they last."""
    hold = holding(backend)
    edge = make_edge({"b": [backend.server]}, server={"workers": 2}, listener={"limits": {"per_address": 6}})
    clients = [from_address(edge, "127.0.0.1") for _ in range(4)]
    for client in clients:
        client.send(b"GET /wait HTTP/1.1\r\nHost: edge.test\r\n\r\n")
    backend.wait_seen("/wait", 4)
    edge.reload()
    edge.wait_error("generation 2 serves")
    more = as_many_as_go(edge, 10)
    # One that came to an old worker just before it drained was closed by that, and its place taken by another.
    assert len([client for client in more if still_serves(client)]) == 2
    hold.set()
    assert [client.response().status for client in clients] == [200] * 4
    close_all(clients)
    close_all((*more, *take_places(edge, 4)))


def test_requests_of_an_address_in_all_workers(make_edge, backend):
    hold = holding(backend)
    limits = {"requests_per_address": 5}
    edge = make_edge({"b": [backend.server]}, server={"workers": 3}, listener={"limits": limits})
    clients = [from_address(edge, "127.0.0.1") for _ in range(12)]
    for client in clients[:5]:
        client.send(b"GET /wait HTTP/1.1\r\nHost: edge.test\r\n\r\n")
    backend.wait_seen("/wait", 5)
    for client in clients[5:]:
        answer = client.get("/ok")
        assert (answer.status, answer.get("retry-after")) == (429, "1")
    with contextlib.closing(from_address(edge, "127.0.0.9")) as other:
        assert other.get("/ok").status == 200
    hold.set()
    assert [client.response().status for client in clients[:5]] == [200] * 5
    assert clients[5].get("/ok").status == 200
    edge.wait_request(7, status=429, error="limits.requests_per_address")
    close_all(clients)


@pytest.mark.parametrize(("limit", "status"), [({"per_address": 1}, 429), ({"connections": 1}, 503)])
def test_over_a_limit_with_an_answer(make_edge, backend, limit, status):
    hold = holding(backend)
    edge = make_edge({"b": [backend.server]}, listener={"limits": {**limit, "over_limit": "answer"}})
    with Client(edge) as first, Client(edge) as second:
        first.send(b"GET /wait HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        backend.wait_seen("/wait")
        with Client(edge) as third:
            for client in (second, third):
                answer = client.get("/ok")
                assert (answer.status, answer.get("connection"), answer.get("retry-after")) == (status, "close", "1")
                assert client.closed()
        hold.set()
        assert first.response().status == 200
    edge.wait_request(2, status=status, error=f"limits.{next(iter(limit))}")


def test_routes_have_limits_of_their_own(make_edge, backend):
    backend.on("/small/*", backend.handlers["/ok"])
    routes = [
        {"match": {}, "upstream": "b"},
        {"match": {"path": "/small/*"}, "upstream": "b", "limits": {"body": "1KiB", "head": "512B"}},
    ]
    edge = make_edge({"b": [backend.server]}, routes=routes)
    with Client(edge) as client:
        assert client.request("POST", "/small/a", body=b"x" * 1024).status == 200
        assert client.request("POST", "/ok", body=b"x" * 1025).status == 200
        assert client.get("/small/a", "X-Large: " + "x" * 512).status == 431
        assert client.get("/ok", "X-Large: " + "x" * 512).status == 200
        assert client.request("POST", "/small/a", body=b"x" * 1025).status == 413
    assert len(backend.seen("/small/a")) == 1
    edge.wait_request(status=413, error="limits.body")
    edge.wait_request(status=431, error="limits.head")


def test_a_thousand_connections_come_to_a_full_worker(make_edge, backend):
    """Each new one is served, in place of the one that has been idle longest; no more are ever open."""
    edge = make_edge({"b": [backend.server]}, listener={"limits": {"connections": 200}})
    clients = []
    for _ in range(1000):
        client = served(edge)
        assert client
        clients.append(client)
    alive = [client for client in clients if still_serves(client)]
    assert alive == clients[-len(alive) :]
    assert 200 - 12 <= len(alive) <= 200
    close_all(clients)
