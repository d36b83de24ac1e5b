"""What a worker tells of its connections: in every state, in pieces, and by filters."""

import functools
import json
import socket
import time

from tests.cext.proxy.harness import Client, H2Client, echo, get, serving, until


def listed(edge, **filters):
    """All connections, piece by piece."""
    place, found = 0, []
    while True:
        place, some = edge.call(functools.partial(edge.plane.connections, place, filters))
        found += [item for _, item in some]
        if not place:
            return found


def one(edge, **filters):
    (found,) = listed(edge, **filters)
    return found


def held(conn):
    """Reads a request and does not answer."""
    conn.request()
    conn.sock.settimeout(30)
    conn.sock.recv(1)


def test_a_handshake():
    with serving(echo) as edge, socket.create_connection(("127.0.0.1", edge.port)) as client:
        client.send(b"\x16\x03\x01")
        until(lambda: listed(edge))
        found = one(edge)
        assert (found["state"], found["client"], found["port"]) == ("handshake", *client.getsockname())
        assert found["local"] == f"127.0.0.1:{edge.port}"
        assert (found["server_name"], found["running"]) == ("", [])
        assert "tls" not in found
        until(lambda: one(edge)["bytes_in"] == 3)


def test_between_requests():
    with serving(echo) as edge, Client(edge) as client:
        client.ask(get("/x"))
        until(lambda: one(edge)["state"] == "idle")
        found = one(edge)
        assert (found["tls"], found["protocol"], found["requests"]) == ("TLSv1.3", "http/1.1", 1)
        assert (found["resumed"], found["early_data"], found["confirmed"]) == (False, False, True)
        assert found["bytes_in"] > 300
        assert found["bytes_out"] > 500
        assert 0 <= found["rtt"] < 10
        assert found["running"] == []
        assert json.loads(json.dumps(found)) == found


def test_a_request_without_its_query():
    with serving(held) as edge, Client(edge) as client:
        client.send(get("/secret/path?token=hidden", "X: y"))
        until(lambda: one(edge)["running"] and one(edge)["running"][0]["server"])
        found = one(edge)
        (request,) = found["running"]
        assert (found["state"], request["method"], request["path"]) == ("active", "GET", "/secret/path")
        assert request["server"].startswith("127.0.0.1:")
        assert request["status"] is None
        assert request["age"] >= 0
        assert "hidden" not in json.dumps(found)


def test_requests_of_http2():
    with serving(held, held, held, held, held, held) as edge, H2Client(edge) as client:
        for n in range(6):
            client.get(f"/{n}?q")
        until(lambda: one(edge).get("streams") == 6)
        found = one(edge)
        assert (found["protocol"], found["state"], found["requests"]) == ("h2", "active", 6)
        assert len(found["running"]) == 4
        assert {request["path"] for request in found["running"]} < {f"/{n}" for n in range(6)}


def test_what_a_client_may_write():
    """Long, and of any bytes that a target may have."""
    with serving(held) as edge, Client(edge) as client:
        path = "/" + "%ff'" * 1000
        client.send(get(path))
        until(lambda: one(edge)["running"])
        assert one(edge)["running"][0]["path"] == path[:256]


def test_filters():
    with serving(echo) as edge, Client(edge) as client, socket.create_connection(("127.0.0.1", edge.port)):
        client.ask(get())
        until(lambda: sorted(found["state"] for found in listed(edge)) == ["handshake", "idle"])
        assert one(edge, state="idle")["protocol"] == "http/1.1"
        assert listed(edge, state="hijacked") == []
        assert len(listed(edge, networks=[("127.0.0.0", 8)])) == 2
        assert len(listed(edge, networks=[("10.0.0.0", 8), ("127.0.0.1", 32)])) == 2
        assert listed(edge, networks=[("127.0.0.2", 32), ("::", 0)]) == []
        name = one(edge, state="idle")["server_name"]
        assert name
        assert len(listed(edge, server_name=name.upper())) == 1
        assert listed(edge, server_name="." + name) == []
        assert listed(edge, server_name="other.example") == []


def test_many_come_in_pieces():
    with serving(echo) as edge:
        clients = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(300)]
        for client in clients:
            client.send(b"\x16")
        until(lambda: len(listed(edge)) == 300)
        place, some = edge.call(lambda: edge.plane.connections(0, {}))
        assert len(some) == 64
        assert place > some[-1][0]
        assert {found["port"] for found in listed(edge)} == {client.getsockname()[1] for client in clients}
        # who asks may begin anywhere
        assert edge.call(lambda: edge.plane.connections(1 << 30, {})) == (0, [])
        assert len(edge.call(lambda: edge.plane.connections(-5, {}))[1]) == 64
        for client in clients:
            client.close()


def test_a_piece_is_quick():
    """However many there are that a filter leaves out."""
    with serving(echo) as edge:
        clients = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(400)]
        for client in clients:
            client.send(b"\x16")
        until(lambda: len(listed(edge)) == 400)

        def timed(plane):
            begin = time.perf_counter()
            plane.connections(0, {})
            middle = time.perf_counter()
            plane.connections(0, {"state": "hijacked"})
            return middle - begin, time.perf_counter() - middle

        times = [edge.call(lambda: timed(edge.plane)) for _ in range(20)]
        assert min(told for told, _ in times) < 0.01
        assert min(passed for _, passed in times) < 0.01
        for client in clients:
            client.close()


def test_what_is_open_to_servers():
    with serving(echo) as edge, Client(edge) as client:
        client.ask(get())
        (server,) = edge.call(edge.plane.upstreams)
        assert server["server"].startswith("127.0.0.1:")
        assert server["idle"] == 1
        assert (server["shared"], server["waiting"], server["avoided"]) == (0, 0, 0)


def test_a_server_that_is_avoided():
    with serving(echo) as edge, Client(edge) as client:
        edge.backends[0].close()
        assert client.ask(get()).status == 503
        (server,) = edge.call(edge.plane.upstreams)
        assert 0 < server["avoided"] <= 1.0
