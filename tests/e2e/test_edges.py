"""Rare but lawful: records and messages in odd pieces, long heads, early answers, crowded pipelines, full pools."""

import random
import socket
import ssl
import threading
import time

import pytest

from tests import tls_corrupt
from tests.e2e.client import Client
from tests.e2e.processes import free_port, open_files, wait_until
from tests.e2e.scripted import OK, Backend
from tests.e2e.test_malformed import GET, Wire


def answers(wire: Wire, count: int, mark: bytes = b"\r\n\r\nok") -> bytes:
    got = b""
    wire.sock.settimeout(10)
    while got.count(mark) < count:
        try:
            got += wire.tls.read(65536)
        except ssl.SSLWantReadError:
            data = wire.sock.recv(65536)
            assert data, got
            wire.incoming.write(data)
    return got


@pytest.fixture(scope="module")
def patient(tmp_path_factory, pki):
    """No limit of time; the backend is `patient.backend`."""
    from tests.e2e.server import Edge

    none = "none"
    limits = {"handshake": none, "header": none, "keepalive": none}
    with Backend() as backend:
        directory = tmp_path_factory.mktemp("patient")
        with Edge(directory, pki, {"b": [backend.server]}, listener={"timeouts": limits}) as edge:
            edge.backend = backend
            yield edge
        assert backend.faults == []


# TLS.


@pytest.mark.parametrize("size", [1, 5, 100])
def test_client_hello_over_many_records(patient, size):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = patient.tls_context().wrap_bio(incoming, outgoing, server_hostname="edge.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    with socket.create_connection(("127.0.0.1", patient.port), 10) as s:
        s.sendall(tls_corrupt.records(hello[5:], size))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = s.recv(65536)
                assert data
                incoming.write(data)
        s.sendall(outgoing.read())
        tls.write(GET)
        s.sendall(outgoing.read())
        got = b""
        while b"\r\n\r\nok" not in got:
            try:
                got += tls.read(65536)
            except ssl.SSLWantReadError:
                data = s.recv(65536)
                assert data
                incoming.write(data)


def test_a_record_that_waits_in_its_middle(patient):
    """Idle for a second, in the middle of a record: the cipher's state is given back meanwhile, and comes again."""
    wire = Wire(patient)
    wire.sock.sendall(wire.finished + wire.seal(GET))
    answers(wire, 1)
    record = wire.seal(GET)
    for cut in (3, 5, 20, len(record) - 1):
        time.sleep(0.7)
        wire.sock.sendall(record[:cut])
        time.sleep(0.7)
        wire.sock.sendall(record[cut:])
        answers(wire, 1)
        record = wire.seal(GET)
    wire.sock.close()


def test_many_idle_connections_wake_up(patient):
    clients = [Client(patient) for _ in range(60)]
    for client in clients:
        client.get("/ok")
    time.sleep(0.8)
    random.Random(1).shuffle(clients)
    for client in clients:
        assert client.get("/ok").status == 200
        client.close()


# HTTP.


def test_a_long_response_head(edge, scripted):
    """Longer than a TLS record."""
    fields = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 900) for i in range(60))
    scripted.on(
        "/s/long-head", lambda c, r: c.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok") or True
    )
    with Client(edge) as client:
        for _ in range(2):
            response = client.get("/s/long-head")
            assert (response.body, response.get("x-59")) == (b"ok", "v" * 900)


def test_a_long_request_head(edge, scripted):
    with Client(edge) as client:
        for _ in range(2):
            assert client.get("/s/ok?long", *(f"X-{i}: {'v' * 900}" for i in range(34))).status == 200
    assert scripted.seen("/s/ok")[-1].get("x-33") == "v" * 900


def test_many_small_chunks(edge, scripted):
    """Both ways, in odd pieces."""
    content = bytes(range(256)) * 40
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"

    def handler(connection, request):
        assert connection.body(request) == content
        message = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        rng = random.Random(5)
        while message:
            n = rng.randint(1, 3000)
            connection.send(message[:n])
            message = message[n:]
        return True

    scripted.on("/s/small", handler)
    with Client(edge) as client:
        client.send(b"POST /s/small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert client.response().body == content


def test_a_crowded_pipeline(edge, scripted):
    """Thousands of requests wait behind a slow one, more than is kept in memory: all are answered, in order."""
    release = threading.Event()
    scripted.on("/s/first", lambda c, r: release.wait(5) and (c.send(OK) or True))
    count = 3000
    pad = b"X-Pad: " + b"p" * 200

    with Client(edge) as client:
        client.send(b"GET /s/first HTTP/1.1\r\nHost: a\r\n\r\n")
        scripted.wait_seen("/s/first")
        threading.Timer(0.5, release.set).start()
        client.pump((b"GET /s/ok HTTP/1.1\r\nHost: a\r\n" + pad + b"\r\n\r\n") * count)
        for _ in range(count + 1):
            assert client.response().status == 200


@pytest.mark.parametrize("path", ["/s/refused", "/nowhere"])
def test_an_answer_overtakes_a_large_body(make_edge, backend, path):
    """The client is still sending when it is refused. It can read the answer; no reset comes first."""

    def refuse(connection, request):
        connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        time.sleep(0.2)

    backend.on("/s/refused", refuse)
    edge = make_edge({"b": [backend.server]}, routes=[{"match": {"path": "/s/*"}, "upstream": "b"}])
    for size in (10_000, 200_000, 3_000_000):
        with Client(edge) as client:
            client.send(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" % path.encode())
            sent = 0
            try:
                while sent < size:
                    client.send(bytes(10_000))
                    sent += 10_000
            except OSError:
                pass  # refused already: what has come is read below
            response = client.response()
            assert (response.status, response.get("connection")) == (413 if path == "/s/refused" else 404, "close")


def test_a_backend_that_answers_first_is_not_used_again(make_edge, backend):
    """It has answered, but still waits for the rest of a body that nobody will send."""
    backend.on("/early", lambda c, r: c.send(OK) or True)
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf")
        assert client.response().status == 200
        assert client.closed()
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    assert backend.seen("/ok")[0].connection == 1


def test_the_pool_has_its_limit(make_edge, backend):
    """Of many connections at once, as many stay as the pool may hold."""
    barrier = threading.Barrier(6)

    def together(connection, request):
        barrier.wait(5)
        connection.send(OK)
        return True

    backend.on("/together", together)
    edge = make_edge({"b": {"servers": [backend.server], "pool": {"max_idle": 2}}})
    clients = [Client(edge) for _ in range(6)]
    for client in clients:
        client.send(b"GET /together HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        assert client.response().status == 200
    wait_until(lambda: len(backend.open) == 2, 20, "closing of what is too much")
    assert clients[0].get("/ok").status == 200
    assert backend.seen("/ok")[0].connection < 6
    for client in clients:
        client.close()


def test_no_descriptor_is_left_behind(make_edge, backend):
    """A few hundred requests of every fate, and the worker holds what it held before."""
    backend.on("/gone", lambda c, r: False)
    backend.on("/half", lambda c, r: c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))
    edge = make_edge({"b": {"servers": [backend.server], "pool": {"idle": "200ms"}}})
    [worker] = edge.workers()
    before = open_files(worker)
    fates = [GET, GET.replace(b"/ok", b"/gone"), GET.replace(b"/ok", b"/half"), b"bad\r\n\r\n"]
    fates.append(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    for i in range(40):
        for data in fates:
            client = Client(edge)
            client.send(data)
            if i % 2 and not data.startswith(b"POST"):
                client.more() if i % 4 == 1 else client.head()
            client.close()
    wait_until(lambda: open_files(worker) <= before, 20, f"{before} open files")


# Addresses.


def test_ipv6_backend(make_edge):
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        port = listener.getsockname()[1]
        threading.Thread(target=_answer_once, args=(listener,), daemon=True).start()
        edge = make_edge({"b": [f"[::1]:{port}"]})
        with Client(edge) as client:
            assert client.get("/six").status == 200
        assert edge.wait_request(path="/six")["upstream"] == f"[::1]:{port}"


def _answer_once(listener: socket.socket) -> None:
    s, _ = listener.accept()
    with s:
        s.recv(65536)
        s.sendall(OK)


def test_a_name_with_several_addresses(make_edge, backend):
    """localhost is ::1, too, perhaps, where nobody listens: the other address serves."""
    port = backend.server.rpartition(":")[2]
    edge = make_edge({"b": [f"localhost:{port}"]})
    with Client(edge) as client:
        for _ in range(4):
            assert client.get("/ok").status == 200


def test_several_listeners(make_edge, backend):
    """Each with limits of its own."""
    second = free_port()
    edge = make_edge({"b": [backend.server]})
    edge.tables["listener"].append({"bind": [f"127.0.0.1:{second}"], "limits": {"line": "64B"}})
    edge.write()
    edge.reload()
    edge.wait_error("generation 2 serves", seconds=8)
    long = "/ok?" + "a" * 100
    with Client(edge) as client:
        assert client.get(long).status == 200
    edge.port = second
    with Client(edge) as client:
        assert client.get("/ok").status == 200
        assert client.get(long).status == 414
