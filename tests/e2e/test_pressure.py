"""Want of descriptors and of memory, for real: idle connections go, those that are busy notice nothing."""

import resource
import socket
import ssl
import time

from tests.e2e.client import Client
from tests.e2e.processes import open_files, wait_until
from tests.e2e.server import settled


def idle_clients(edge, number: int) -> list[Client]:
    clients = [Client(edge) for _ in range(number)]
    for client in clients:
        assert client.get("/ok").status == 200
    return clients


def ended(client: Client) -> bool:
    """Whether the server has ended the connection in good order."""
    client.sock.settimeout(0.1)
    try:
        return client.rest() == b""
    except TimeoutError:
        return False


def test_descriptors_run_out(make_edge, backend):
    """The limit falls below what is open: accepting, and connecting to the upstream, take from idle clients."""
    edge = make_edge({"b": [backend.server]})
    [worker] = edge.workers()
    busy = Client(edge)
    idle = idle_clients(edge, 40)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_files(worker), 100))
    with Client(edge) as late:
        assert late.get("/ok").status == 200
        assert ended(idle[0])
        assert busy.get("/ok").status == 200
    message = edge.wait_error("descriptors run short")
    assert "idle connections are closed" in message
    for _ in range(50):
        with Client(edge) as late:
            assert late.get("/ok").status == 200
    assert sum("descriptors run short" in text for _, text in edge.errors()) == 1
    assert not edge.in_error_log("accept:")
    for client in (*idle, busy):
        client.close()


def test_the_last_descriptors_are_the_upstreams(make_edge, backend):
    """Where no client is idle, those beyond are closed at once; who is in is served."""
    edge = make_edge({"b": [backend.server]})
    [worker] = edge.workers()
    with Client(edge):
        pass  # now it serves: what a worker opens when it begins is open
    limit = settled(lambda: open_files(worker)) + 24
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
    time.sleep(2.5)  # it looks at the limit once a second
    inside, refused = [], 0
    for _ in range(40):
        try:
            inside.append(Client(edge))  # new: no request yet
        except (ConnectionError, ssl.SSLError):
            refused += 1
    assert len(inside) == 20
    assert refused == 40 - len(inside)
    assert edge.wait_error("no descriptors to spare")
    assert not edge.in_error_log("accept:")
    assert [client.get("/ok").status for client in inside] == [200] * len(inside)
    with Client(edge) as late:  # all are idle now
        assert late.get("/ok").status == 200
    for client in inside:
        client.close()


def test_memory_runs_short(make_edge, backend):
    edge = make_edge({"b": [backend.server]}, server={"memory_limit": "16MiB"})
    idle = idle_clients(edge, 50)
    wait_until(lambda: all(ended(client) for client in idle), 20, "the end of all that are idle")
    message = edge.wait_error("memory runs short")
    assert "of 16 MiB" in message
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    assert sum("memory runs short" in text for _, text in edge.errors()) == 1
    for client in idle:
        client.close()


def test_a_flood_of_connections_does_not_stall_who_is_in(make_edge, backend):
    """A full worker closes what is too much as fast as it comes."""
    edge = make_edge({"b": [backend.server]}, listener={"limits": {"connections": 20}})
    inside = [Client(edge) for _ in range(20)]
    flood = []
    for n in range(1500):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", edge.port))
        flood.append(s)
        if n % 100 == 0:
            begin = time.monotonic()
            s = inside[0]
            s.send(b"GET /ok HTTP/1.1\r\nHost: edge.test\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n")
            s.send(b"abc")
            assert s.response().status == 200
            assert time.monotonic() - begin < 2
    for s in flood:
        s.close()
    for client in inside:
        client.close()
    with Client(edge) as client:
        assert client.get("/ok").status == 200
