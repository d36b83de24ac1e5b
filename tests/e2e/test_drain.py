"""Draining: one deadline for all that a worker still serves, and no more drainers than there is room for."""

import os
import signal
import ssl
import subprocess
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import peer, wait_until
from tests.e2e.scripted import OK
from tests.e2e.test_upgrade import RAW, Tunnel, echoing

GENERATIONS = 6


@pytest.fixture
def held(backend):
    """Requests for /held are answered when this is set."""
    released = threading.Event()

    def answer(connection, _request):
        released.wait(60)
        connection.send(OK)
        return True

    backend.on("/held", answer)
    yield released
    released.set()


def ask(edge, path="/held"):
    return Client(edge, seconds=40).send(f"GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())


def test_the_deadline_is_one_for_all(make_edge, backend, nginx, held):
    """A tunnel, a download that its client does not take, requests of HTTP/1.1 and HTTP/2: all go on until then."""
    backend.on("/raw", echoing)
    edge = make_edge(
        {"b": [backend.server], "nginx": [nginx.server]},
        routes=[{"match": {}, "upstream": "b"}, RAW, {"match": {"path": "/256m"}, "upstream": "nginx"}],
        server={"workers": 1, "drain_timeout": "1500ms"},
    )
    tunnel = Tunnel(edge)
    download = Client(edge, receive_buffer=65536).send(b"GET /256m HTTP/1.1\r\nHost: edge.test\r\n\r\n")
    assert download.head().status == 200
    request = ask(edge)
    there = ["--cacert", edge.pki.ca.file, "--resolve", f"edge.test:{edge.port}:127.0.0.1", edge.url("/held")]
    curl = subprocess.Popen(
        [peer("curl"), "-s", "-v", "--http2", "--max-time", "30", *there],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    backend.wait_seen("/held", 2)
    began = time.monotonic()
    edge.signal(signal.SIGTERM)
    edge.wait_error("draining 1 workers")
    tunnel.echo(b"goes on")
    download.exactly(1 << 20)
    assert edge.process.popen.poll() is None
    assert edge.process.popen.wait(30) == 0
    took = time.monotonic() - began
    assert 1.4 < took < 8, took
    for cut in (tunnel.client, download, request):
        with pytest.raises((OSError, ssl.SSLError, AssertionError)):
            while True:
                assert cut.more()
        cut.close()
    said = curl.communicate(timeout=30)[1]
    assert curl.returncode != 0, said
    assert not edge.in_error_log("drained too long")


def test_who_drains_too_many_generations_cuts_the_oldest(make_edge, backend, held):
    edge = make_edge({"b": [backend.server]}, server={"workers": 1, "drain_timeout": "1m"})
    clients, first = [], edge.workers()
    for number in range(2, GENERATIONS + 1):
        clients.append(ask(edge))
        backend.wait_seen("/held", len(clients))
        edge.tables["server"]["workers"] = number  # other processes: the old ones drain
        edge.write()
        edge.reload()
        edge.wait_error(rf"generation {number} serves", seconds=30)
    # Five generations drain, and one of them is too many.
    edge.wait_error(rf"worker 0 \(pid {first[0]}, generation 1\) is ended early: 5 generations drain", seconds=30)
    with pytest.raises((OSError, AssertionError)):
        clients[0].response()
    wait_until(lambda: first[0] not in edge.workers(), 30, "its end")
    held.set()
    for client in clients[1:]:
        response = client.response()
        assert (response.status, response.get("connection")) == (200, "close")
        client.close()
    wait_until(lambda: len(edge.workers()) == GENERATIONS, 30, "the end of all that drained")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in first)
