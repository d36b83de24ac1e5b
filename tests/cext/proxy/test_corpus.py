"""Every case of tests/vectors/{requests,responses} through the real proxy: what reaches the backend, what the client
gets. Some of the ways a case is cut go as TLS records of their own."""

import contextlib
import random
import re
import ssl
import threading

import pytest

from tests.cext.proxy.harness import BytesClient, get, reply, serving
from tests.vectors import cases

REQUESTS = cases.load("requests", "valid") + cases.load("requests", "invalid")
RESPONSES = cases.load("responses", "valid") + cases.load("responses", "invalid")
LIMITS = {"listener": {"keepalive_ms": 8000}}


class Recorder:
    """Serves connections: every whole request is kept in canonical form and answered."""

    def __init__(self):
        self.seen = []
        self.lock = threading.Lock()

    def __call__(self, conn):
        wire = cases.Wire(conn.sock.recv, cases.ADDED_TO_REQUESTS)
        while True:
            start, message = wire.message()
            with self.lock:
                self.seen.append(message)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if start.startswith(b"HEAD ") else reply(b""))

    def take(self):
        with self.lock:
            taken, self.seen = b"".join(self.seen), []
        return taken


@pytest.fixture(scope="module")
def recording():
    recorder = Recorder()
    with serving(recorder, **LIMITS) as edge:
        yield edge, recorder


def pieces(data, way):
    """whole; bytes; or at random places."""
    if way == "whole":
        return [data]
    if way == "bytes" and len(data) < 600:
        return [data[i:i + 1] for i in range(len(data))]
    chance = random.Random(data)
    at = sorted(chance.randrange(len(data) + 1) for _ in range(7))
    return [p for a, b in zip([0, *at], [*at, len(data)], strict=True) if (p := data[a:b])]


def heard(client):
    """All that a client gets -> (statuses, how it ends, canonical bytes)."""
    wire = cases.Wire(client.recv, cases.ADDED_TO_RESPONSES)
    answers, got = [], b""
    try:
        while True:
            start, message = wire.message()
            answers.append(int(start.split()[1]))
            got += message
    except EOFError:
        return answers, "close" if client.buffer == wire.buffer == b"" else "cut", got


@pytest.mark.parametrize("way", ["whole", "bytes", "random"])
@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_requests(recording, case, way):
    """Behind a valid case one more request, which closes, is served; behind an invalid one nothing is."""
    edge, recorder = recording
    recorder.take()                             # what a failure may have left
    last = get("/last", "Connection: close") if not case.end else cases.SMUGGLED
    client = BytesClient(edge)
    with contextlib.suppress(OSError):          # a refusal may close before all is sent
        client.tcp.sendall(client.records(*pieces(case.client + last, way)))
    answers, end, _ = heard(client)
    client.close()
    expected = list(case.answers) + ([] if case.end else [200])
    assert (answers, end) == (expected, "close")
    assert recorder.take() == case.upstream + (b"" if case.end else
                                               b"GET /last HTTP/1.1\r\nHost: example.com\r\n\r\n")


@pytest.fixture(scope="module")
def replying():
    """A backend that answers with what `say` holds, in its pieces, and ends."""
    say = []

    def script(conn):
        request = conn.request()
        if request.start.startswith("GET /last "):
            conn.send(reply(b"last"))
            return
        for piece in say:
            conn.send(piece)

    with serving(script, **LIMITS) as edge:
        yield edge, say


def cut_off(client):
    """What a client gets before its connection ends without close_notify."""
    got = b""
    with pytest.raises((EOFError, ssl.SSLError, ConnectionResetError)):
        while True:
            more = client.recv(65536)
            assert more, "close_notify"
            got += more
    client.close()
    return got


@pytest.mark.parametrize("way", ["whole", "bytes", "random"])
@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_responses(replying, case, way):
    edge, say = replying
    # A second answer that comes late enough is one to the next request: nothing tells them apart in HTTP/1.1.
    say[:] = pieces(case.upstream, "whole" if case.name == "more-than-asked" else way) if case.upstream else []
    client = BytesClient(edge)
    client.tcp.sendall(client.records(get("/", method=case.method)))
    wire = cases.Wire(client.recv, cases.ADDED_TO_RESPONSES)
    answers, got = [], b""
    if case.end == "cut":
        # The head may have been sent when the fault shows, or not. What counts is that nothing looks whole.
        got = cut_off(client)
        assert re.sub(cases.ADDED_TO_RESPONSES, b"", got).startswith(case.client) or got == b""
        assert not got.endswith(cases.content(b""))
        return
    for expected in case.answers:
        bodiless = case.method == "HEAD" or expected in (204, 304) or expected < 200
        start, message = wire.message(bodiless)
        answers.append(int(start.split()[1]))
        if answers[-1] != 502:
            got += message
    client.tcp.sendall(client.records(get("/last")))        # the client's connection goes on
    start, message = wire.message()
    assert message.endswith(b"\r\n\r\nlast")
    client.close()
    assert (tuple(answers), got) == (case.answers, case.client)
