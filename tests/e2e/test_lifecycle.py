"""Master and workers while clients are at work: a killed worker, reloads, the end. The clients are the judges.

What the processes themselves do is tested in tests/edge/test_master.py.
"""

import hashlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import peer, run, wait_until
from tests.e2e.scripted import OK


def connections(pid: int, port: int) -> set[int]:
    """The clients' ports of a process's established connections on a listening port."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, state, inode = fields[1], fields[2], fields[3], fields[9]
        if inode in inodes and state == "01" and int(local.split(":")[1], 16) == port:
            found.add(int(remote.split(":")[1], 16))
    return found


class Load:
    """Clients in threads: each opens a connection, asks some times, closes, and begins again; faults are gathered."""

    def __init__(self, edge, clients: int = 6, path: str = "/ok", requests: int = 5) -> None:
        self.edge, self.path, self.requests = edge, path, requests
        self.served = 0
        self.faults: list[tuple[int, str]] = []
        """(own port or 0, what happened)"""
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self) -> None:
        while not self._done.is_set():
            port = 0
            try:
                with Client(self.edge) as client:
                    port = client.port
                    for _ in range(self.requests):
                        response = client.get(self.path)
                        if response.status != 200:
                            self.faults.append((port, str(response)))
                        self.served += 1
                        if response.get("connection") == "close":
                            break
            except (OSError, AssertionError) as e:
                self.faults.append((port, repr(e)))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.served > 50, 10, "load")
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(15)


@pytest.fixture
def pair(make_edge, backend):
    return make_edge({"b": [backend.server]}, server={"workers": 2})


def test_a_killed_worker_takes_its_own_connections_only(pair):
    clients = {}
    for _ in range(40):
        client = Client(pair)
        assert client.get("/ok").status == 200
        clients[client.port] = client
    victim, other = pair.workers()
    lost, kept = connections(victim, pair.port), connections(other, pair.port)
    assert lost | kept == set(clients)
    assert lost
    assert kept
    os.kill(victim, signal.SIGKILL)
    # These first: Python 3.13 tells a write that failed once more at its thread's next read, on any connection.
    for port in kept:
        assert clients[port].get("/ok").status == 200
    for port in lost:
        with pytest.raises((OSError, AssertionError)):
            clients[port].get("/ok")
    for client in clients.values():
        client.close()
    wait_until(lambda: victim not in pair.workers() and len(pair.workers()) == 2, 20, "another worker")
    assert other in pair.workers()


def test_a_worker_killed_under_load(pair):
    """What was open at the victim is lost, nothing else: whoever waits in its queue is served by its successor."""
    with Load(pair, clients=8) as load:
        for _ in range(3):
            victim = pair.workers()[0]
            os.kill(victim, signal.SIGSTOP)  # so that its connections can be counted, and a queue builds up
            time.sleep(0.3)
            open_there = connections(victim, pair.port)
            known = len(load.faults)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda gone=victim: len(pair.workers()) == 2 and gone not in pair.workers(), 20, "a successor")
            served = load.served
            wait_until(lambda: load.served > served + 50, 10, "further load")  # noqa: B023
            faults = load.faults[known:]
            assert len(faults) <= len(open_there), (faults, open_there)
            assert {port for port, _ in faults if port} <= open_there


def test_reload_under_load_loses_no_request(pair, backend):
    with Load(pair) as load:
        for number in (2, 3, 4):
            # A different configuration each time.
            pair.tables["listener"][0]["forwarded"] = "both" if number % 2 else "forwarded"
            pair.write()
            pair.reload()
            pair.wait_error(rf"generation {number} serves", seconds=8)
            served = load.served
            wait_until(lambda: load.served > served + 50, 10, "further load")  # noqa: B023
    assert load.faults == []
    assert load.served > 150
    assert [r.get("forwarded") for r in backend.seen("/ok")][-1]


def test_reload_with_a_bad_file(pair):
    """Nothing changes, not even a process; the log says what, where, and what to write instead."""
    workers = pair.workers()
    good = pair.config.read_text()
    with Load(pair) as load, Client(pair) as client:
        assert client.get("/ok").status == 200
        for text, pattern in (
            ("[server\n", "is no TOML"),
            (good.replace("[server]", "[server]\nworkerz = 3"), r"workerz.*workers"),
            (good.replace('"5s"', '"5 parsecs"', 1), r"server\.drain_timeout.*5 parsecs"),
            (good.replace("default.pem", "none.pem"), r"certificate\[0\]\.chain.*none\.pem"),
            (good.replace("default.key", "p384.key"), r"certificate\[0\]"),
        ):
            assert text != good
            since = pair.mark()
            pair.config.write_text(text)
            pair.reload()
            message = pair.wait_error("reload refused, nothing has changed", since)
            assert re.search(pattern, message), message
        assert client.get("/ok").status == 200
        assert pair.workers() == workers
        pair.config.write_text(good)
        pair.reload()
        pair.wait_error("generation 2 serves", seconds=8)
    assert load.faults == []


def test_transfers_outlive_a_reload(make_edge, nginx, gunicorn):
    """A download and an upload that began before a reload end whole after it, at the same workers."""
    edge = make_edge(
        {"nginx": [nginx.server], "app": [gunicorn.server]},
        routes=[{"match": {}, "upstream": "nginx"}, {"match": {"path": "/app/*"}, "upstream": "app"}],
        server={"drain_timeout": "30s"},
    )
    size = 64 << 20
    with Client(edge, seconds=30, receive_buffer=65536) as down, Client(edge, seconds=30) as up:
        down.send(b"GET /256m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert down.head().status == 200
        up.send(b"POST /app/sha256 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        up.send(bytes(size // 2))
        old = edge.workers()
        edge.tables["listener"][0]["backlog"] = 100
        edge.write()
        edge.reload()
        edge.wait_error("generation 2 serves", seconds=8)
        with Client(edge) as client:
            assert client.get("/1k").status == 200
        up.send(bytes(size // 2))
        answer = up.response()
        assert answer.body.decode() == f"{hashlib.sha256(bytes(size)).hexdigest()} {size}"
        assert answer.get("connection") is None
        buffer = bytearray(1 << 20)
        got = len(down.received)
        while got < 1 << 28:
            n = down.sock.recv_into(buffer)
            assert n, f"cut after {got} bytes"
            got += n
        down.received = b""
        assert down.closed()
    assert edge.workers() == old


def test_sigterm_lets_requests_end(make_edge, backend):
    released = threading.Event()

    def held(connection, request):
        connection.body(request)
        released.wait(5)
        connection.send(OK)
        return True

    backend.on("/held", held)
    edge = make_edge({"b": [backend.server]}, server={"workers": 2})
    idle = [Client(edge) for _ in range(10)]
    for client in idle:
        assert client.get("/ok").status == 200
    busy = [Client(edge) for _ in range(10)]
    for client in busy:
        client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
    backend.wait_seen("/held", 10)
    edge.signal(signal.SIGTERM)
    for client in idle:
        assert client.closed()  # in good order, and at once
        client.close()
    with pytest.raises(OSError):
        Client(edge, seconds=2)  # accepts no more
    assert edge.process.popen.poll() is None
    released.set()
    for client in busy:
        response = client.response()
        assert (response.status, response.get("connection")) == (200, "close")
        assert client.closed()
        client.close()
    assert edge.process.popen.wait(8) == 0
    assert len(edge.requests(path="/held", status=200)) == 10


def test_sigterm_under_load(pair):
    """Everybody who was let in gets an answer; those who come later are refused, and that at once."""
    with Load(pair) as load:
        pair.signal(signal.SIGTERM)
        wait_until(lambda: pair.process.popen.poll() is not None, 10, "end")
    # Refused or reset while connecting (port 0): nobody served them. A request that was taken is answered.
    assert [fault for fault in load.faults if fault[0]] == []


def test_h2load_over_a_reload(pair):
    """A load generator with long-lived connections: it reconnects where a drained one is closed, and nothing fails."""
    results = []
    command = [peer("h2load"), "--h1", "-c", 8, "-D", 3, "-t", 1, f"https://127.0.0.1:{pair.port}/ok"]
    thread = threading.Thread(target=lambda: results.append(run(command, seconds=30).stdout))
    thread.start()
    time.sleep(1)
    pair.reload()
    pair.wait_error("generation 2 serves", seconds=8)
    thread.join(30)
    assert re.search(r" 0 3xx, 0 4xx, 0 5xx", results[0]), results[0]
    assert int(re.search(r"status codes: (\d+) 2xx", results[0])[1]) > 100
