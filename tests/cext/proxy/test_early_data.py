"""Requests in early data: refused, held, or forwarded, over both protocols, by clients of every kind."""

import os
import threading
import time

import pytest
from cext.proxy.early_rules import EarlyRules
from cext.proxy.router import Route
from cext.tls.replay import SharedRegister
from cext.tls.session import TicketKeys

from tests.cext.proxy.harness import SECONDS, Reader, echo, get, post, reply, serving, until
from tests.cext.proxy.test_states import Watched
from tests.cext.tls.peer import server_config
from tests.early_client import EarlyClient, session_of
from tests.h2_peer import DATA, END_STREAM, PREFACE, H2Peer, frame, request_fields, settings

LIMIT = 16_384
UNIQUE = b"Early-Data-Unique"


class Seen:
    """A backend that notes the requests it gets, and answers them when it may."""

    def __init__(self):
        self.requests = []
        self.may = threading.Event()
        self.may.set()
        self.answers = {}                   # path -> what to answer first

    def __call__(self, conn):
        while True:
            request = conn.request()
            self.requests.append(request)
            assert self.may.wait(SECONDS)
            path = request.start.split()[1]
            answer = self.answers.pop(path, None) or reply(path.encode(), fields=())
            conn.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.start.startswith("HEAD") else answer)

    def paths(self):
        return [request.start.split()[1] for request in self.requests]

    def of(self, path):
        return [request for request in self.requests if request.start.split()[1] == path]


def tls(**more):
    register = SharedRegister(20_000, 4096)
    return {"tickets": TicketKeys([(b"n" * 16, os.urandom(32))]), "max_early_data": LIMIT, "replay": register, **more}


def routes(group):
    return [
        Route(group, path="/*"),
        Route(group, path="/f/*", early_data=EarlyRules("forward")),
        Route(group, path="/any/*", early_data=EarlyRules("forward", methods=("GET", "POST", "PURGE"), query=True,
                                                          content=True)),
        Route(group, path="/r/*", early_data=EarlyRules("reject")),
    ]


def early_edge(seen, *, listener=None, **more):
    more.setdefault("tls", server_config(alpn=(b"h2", b"http/1.1"), **tls()))
    return serving(seen, routes=routes, listener={"unique_header": UNIQUE, **(listener or {})}, **more)


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def edge(seen):
    with early_edge(seen) as edge:
        yield edge


def counted(edge, **wanted):
    """Waits for these counters, without their early_."""
    def found():
        counters = edge.counters()
        return {name: counters[f"early_{name}"] for name in wanted}
    until(lambda: found() == wanted)


class H1(Reader):
    """A client of HTTP/1.1 whose first requests are early data."""

    protocol = "http/1.1"

    def __init__(self, edge, session=None):
        self.client = EarlyClient(edge.port, session or session_of(edge.port))
        super().__init__(self.client)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, *requests):
        """(method, path) each: how they are told from each other is the number of the question."""
        self.client.send(b"".join(get(path, method=method) for method, path in requests))

    def status(self, _):
        return self.response().status


class H2:
    protocol = "h2"

    def __init__(self, edge, session=None):
        self.client = EarlyClient(edge.port, session or session_of(edge.port, alpn="h2"), alpn="h2")
        self.peer = H2Peer(self.hold_back, lambda: self.client.recv(65536))
        self.streams = []
        self.begun = True
        self.client.send(self.pending)

    pending = b""
    begun = False

    def hold_back(self, data):
        if self.begun:
            self.client.send(data)
        else:
            self.pending += data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, *requests):
        self.streams += [self.peer.get(path, method=method) for method, path in requests]

    def status(self, i):
        return self.peer.response(self.streams[i]).status


@pytest.fixture(params=[H1, H2], ids=["h1", "h2"])
def kind(request):
    return request.param


def test_a_safe_request_is_forwarded_at_once(edge, seen, kind):
    with kind(edge) as client:
        client.ask(("GET", "/f/one"))
        assert client.status(0) == 200, "before the client's Finished"
        [request] = seen.of("/f/one")
        assert request.fields["early-data"] == "1"
        fingerprint, number = request.fields["early-data-unique"].split("-")
        assert len(bytes.fromhex(fingerprint)) == 32 and number == "1"
        counted(edge, forwarded=1, confirmed=0, accepted=0)
        client.client.confirm()
        client.ask(("GET", "/f/two"))
        assert client.status(1) == 200
    [request] = seen.of("/f/two")
    assert "early-data" not in request.fields and "early-data-unique" not in request.fields
    counted(edge, forwarded=1, confirmed=0, offered=1, accepted=1)
