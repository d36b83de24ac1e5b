"""Many reloads under load: nobody is failed, nothing is dropped, and no memory, process or descriptor is kept."""

import contextlib
import threading

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import children, open_files, rss
from tests.e2e.reloading import SECONDS, WebSocket, backend_of, http2, renew
from tests.e2e.scripted import Backend
from tests.e2e.server import settled

GROWTH = 6 << 20
"""Bytes that a process may have more in the end than halfway: what is freed is not all given back at once, and of the
first few hundred reloads each may find other threads with other memory to be reused."""

RULES = """
import helper
TABLE = list(range(20_000))  # would be seen, were it kept

class Policy:
    def __init__(self):
        self.number = helper.NUMBER

    def response(self, request, response):
        response.headers["x-number"] = str(self.number)

    async def director(self, request):
        if request.path == "/x":
            request.upstream = "c"
"""


class Load:
    """Clients of every kind, until the end; faults are gathered."""

    def __init__(self, edge) -> None:
        self.edge = edge
        self.requests = 0
        self.pings = 0
        self.faults: list[BaseException] = []
        self._done = threading.Event()
        kinds = (self._short, self._short, self._kept, self._http2, self._socket, self._socket, self._idle)
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _run(self, kind) -> None:
        try:
            kind()
        except BaseException as e:
            self.faults.append(e)

    def _short(self) -> None:
        while not self._done.is_set():
            with Client(self.edge, seconds=SECONDS) as client:
                for _ in range(5):
                    self._ask(client)

    def _kept(self) -> None:
        with Client(self.edge, seconds=SECONDS) as client:
            while not self._done.is_set():
                self._ask(client)

    def _http2(self) -> None:
        with http2(self.edge) as h2:
            while not self._done.is_set():
                streams = [h2.get("/ok", authority="edge.test") for _ in range(3)]
                assert [h2.response(stream).status for stream in streams] == [200] * 3
                h2.responses.clear()
                self.requests += 3

    def _socket(self) -> None:
        with WebSocket(self.edge) as ws:
            while not self._done.wait(0.005):
                ws.ping()
                self.pings += 1

    def _idle(self) -> None:
        """Connections that ask once and stay: none of them may keep the configuration that it began with."""
        with contextlib.ExitStack() as stack:
            clients = []
            while not self._done.wait(0.05):
                clients.append(stack.enter_context(Client(self.edge, seconds=SECONDS)))
                self._ask(clients[-1])
                if len(clients) > 100:
                    clients.pop(0).close()

    def _ask(self, client: Client) -> None:
        response = client.get("/ok")
        assert response.status == 200, response
        assert response.get("connection") is None, response
        self.requests += 1


@pytest.mark.parametrize("times", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_reloads_under_load(make_edge, backend, pki, times):
    backend_of(backend)
    with Backend() as other:
        edge = make_edge({"b": [backend.server]}, server={"workers": 2})
        change(edge, pki, other, 0)
        renew(edge)
        workers, processes = edge.workers(), len(children(edge.pid))
        measured: dict[int, dict[int, int]] = {}
        with Load(edge) as load:
            for n in range(1, times + 1):
                change(edge, pki, other, n)
                renew(edge)
                if n in (times // 2, times):
                    measured[n] = {pid: settled(lambda pid=pid: rss(pid) >> 20) << 20 for pid in (edge.pid, *workers)}
                    files = {pid: open_files(pid) for pid in (edge.pid, *workers)}
                    measured.setdefault(0, files)
                assert not load.faults, load.faults
        assert load.faults == []
        assert load.requests > times
        assert load.pings > times
    assert edge.workers() == workers
    assert len(children(edge.pid)) == processes
    early, late = measured[times // 2], measured[times]
    grown = {pid: late[pid] - early[pid] for pid in late}
    assert max(grown.values()) < GROWTH, (early, late)
    assert all(files[pid] - measured[0][pid] < 60 for pid in files), (measured[0], files)


def change(edge, pki, other: Backend, n: int) -> None:
    """Another configuration, with something of everything."""
    (edge.directory / "helper.py").write_text(f"NUMBER = {n}\n")
    (edge.directory / "rules.py").write_text(RULES)
    edge.tables["server"] |= {"hooks": "rules:Policy", "hook_timeout": f"{5 + n % 2}s"}
    edge.tables["listener"][0]["backlog"] = 500 + n
    edge.tables["listener"][0]["timeouts"] = {"keepalive": f"{300 + n}s", "header": f"{60 + n % 9}s"}
    edge.tables["certificate"] = [c.table() for c in ([pki.default, pki.exact], [pki.default, pki.p384])[n % 2]]
    edge.tables["upstream"][1:] = [{"name": "c", "servers": [other.server], "pool": {"max_idle": 10 + n}}]
    edge.tables["route"][1:] = [{"match": {"path": f"/{n % 7}/{i}/*"}, "upstream": "c"} for i in range(50)]
