"""Connections of HTTP/2 that are idle give their memory back, and whatever comes next finds them as they were."""

import time

import pytest

from cext.base import arena
from tests.cext.proxy.harness import H2_CONTEXT, BytesClient, H2Client, echo, serving, until
from tests.h2_peer import PING, H2Peer, frame

COOKIES = [("cookie", f"session={n}-{'x' * 40}") for n in range(8)]


def asleep():
    return arena.slots()[2]


@pytest.fixture
def edge():
    with serving(echo) as edge:
        yield edge
    assert asleep() == 0


def test_tables_of_fields_survive(edge):
    """Later heads refer to fields of earlier ones (RFC 7541, section 2.3.2)."""
    with H2Client(edge) as client:
        for path in ("/1", "/2", "/3"):
            assert client.ask(path, fields=COOKIES).body == f"GET {path} ".encode()
            until(lambda: asleep() == 1)
        assert client.response(client.post(b"y" * 100_000, "/up")).body == b"POST /up " + b"y" * 100_000


def test_a_ping_is_answered_in_its_sleep(edge):
    with H2Client(edge) as client:
        client.ask("/")
        until(lambda: asleep() == 1)
        for n in (1, 2):
            client.send(frame(PING, payload=bytes(8)))
            client.until(lambda n=n: client.pongs == n)
            until(lambda: asleep() == 1)
        assert client.ask("/again").status == 200


def test_one_that_closes_in_its_sleep(edge):
    used = arena.slots()[0]
    for _ in range(3):
        with H2Client(edge) as client:
            client.ask("/")
            until(lambda: asleep() == 1)
        edge.until_idle()
        until(lambda: asleep() == 0)
    until(lambda: arena.slots()[0] == used)


def test_a_stream_that_is_open_keeps_it_awake(edge):
    with H2Client(edge) as client:
        client.ask("/")
        stream = client.post(b"", end=False)
        with pytest.raises(AssertionError):
            until(lambda: asleep() == 1, 1)
        client.send(frame(0, 1, stream))
        assert client.response(stream).status == 200


def test_draining_wakes_it():
    with serving(echo) as edge, H2Client(edge) as client:
        client.ask("/")
        until(lambda: asleep() == 1)
        edge.call(lambda: edge.plane.drain(5000))
        client.until(lambda: client.goaways)


def test_records_of_a_byte_do_not_wake_it_one_by_one(edge):
    """A frame that means nothing, and that costs its sender next to nothing, in as many records as it has bytes."""
    client = BytesClient(edge, context=H2_CONTEXT)
    peer = H2Peer(lambda data: client.tcp.sendall(client.records(data)), lambda: client.recv(65536))
    assert peer.ask("/").status == 200
    spent = []
    for idle in (False, True):
        wire = client.records(*[bytes([b]) for b in frame(0x77, payload=bytes(16000))], frame(PING, payload=bytes(8)))
        if idle:
            until(lambda: asleep() == 1)
        pongs, before = peer.pongs, time.process_time()
        client.tcp.sendall(wire)
        peer.until(lambda pongs=pongs: peer.pongs > pongs)
        spent.append(time.process_time() - before)
    assert spent[1] < 5 * spent[0] + 0.02       # it was 35 times as much
    client.close()
    edge.until_idle()
