"""A CA, backends and a server that most end-to-end tests share. What needs settings of its own starts its own.

EDGE_SLOW=1 runs the tests marked `slow`, too: transfers of 10 GiB, tens of thousands of malformed peers.
"""

import os

import pytest

from tests.e2e.backends import Gunicorn, Nginx
from tests.e2e.pki import Pki
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; run with EDGE_SLOW=1")


def pytest_collection_modifyitems(items):
    if os.environ.get("EDGE_SLOW"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: EDGE_SLOW=1 runs it"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    backend = Nginx(tmp_path_factory.mktemp("nginx"))
    yield backend
    backend.stop()


@pytest.fixture(scope="session")
def gunicorn(tmp_path_factory):
    backend = Gunicorn(tmp_path_factory.mktemp("gunicorn"))
    yield backend
    backend.stop()


@pytest.fixture(scope="session")
def scripted():
    """A backend of raw bytes under /s/ of the shared server; each test takes paths of its own."""
    with Backend() as backend:
        backend.on("/s/ok", backend.handlers["/ok"])
        yield backend
        assert backend.faults == []


@pytest.fixture(scope="session")
def edge(tmp_path_factory, pki, nginx, gunicorn, scripted):
    """The shared server: two workers, every certificate; nginx behind /, the application under /app/ (TCP) and /unix/
    (Unix socket), the scripted backend under /s/."""
    server = Edge(
        tmp_path_factory.mktemp("edge"),
        pki,
        {"nginx": [nginx.server], "app": [gunicorn.server], "app-unix": [gunicorn.unix], "scripted": [scripted.server]},
        routes=[
            {"match": {}, "upstream": "nginx"},
            {"match": {"path": "/app/*"}, "upstream": "app"},
            {"match": {"path": "/unix/*"}, "upstream": "app-unix"},
            {"match": {"path": "/s/*"}, "upstream": "scripted"},
        ],
        certificates=pki.all(),
        server={"workers": 2},
    )
    with server:
        yield server


@pytest.fixture
def make_edge(tmp_path, pki):
    """Starts servers with settings of a test's own: make_edge(upstreams, **settings); see Edge."""
    started: list[Edge] = []

    def make(upstreams, **settings) -> Edge:
        server = Edge(tmp_path / f"edge{len(started)}", pki, upstreams, **settings)
        started.append(server)
        return server.start()

    yield make
    for server in started:
        if server.process:
            server.stop()


@pytest.fixture
def backend():
    """A scripted backend of the test's own."""
    with Backend() as own:
        yield own
        assert own.faults == []
