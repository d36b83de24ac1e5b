"""How large the records of a response are: small ones first, then full ones, and small again after a pause."""

import socket
import time

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import DATA, Engine

from tests.cext.proxy.harness import SECONDS, get, reply, serving
from tests.cext.tls.peer import APPLICATION_DATA

OVERHEAD = 5 + 1 + 16


def content(n):
    return bytes(range(256)) * (n // 256) + bytes(range(n % 256))


def sized(conn):
    """Answers with as many bytes as the path says."""
    while True:
        n = int(conn.request().start.split()[1][1:])
        conn.send(reply(content(n)))


class RecordClient:
    """Keeps the length of every record that it gets."""

    def __init__(self, edge, **options):
        self.tls = Engine(ClientConfig(server_name="example.com", alpn=(b"http/1.1",), **options))
        self.sock = socket.create_connection(("127.0.0.1", edge.port), SECONDS)
        self.stream = b""
        while not self.tls.established:
            self.sock.sendall(self.tls.take_output())
            self.tls.receive_bytes(self.sock.recv(65536))
            assert self.tls.failure is None
        self.sock.sendall(self.tls.take_output())

    def ask(self, n):
        """A response of n bytes -> the contents' lengths of the records it came in."""
        self.tls.send(get(f"/{n}"))
        self.sock.sendall(self.tls.take_output())
        lengths, got = [], b""
        while not got.endswith(b"\r\n\r\n" + content(n)):
            self.stream += self.sock.recv(1 << 20)
            while len(self.stream) >= 5 + int.from_bytes(self.stream[3:5], "big"):
                whole, self.stream = self.stream[: 5 + int.from_bytes(self.stream[3:5], "big")], self.stream[5:]
                self.stream = self.stream[len(whole) - 5 :]
                assert whole[0] == APPLICATION_DATA
                lengths.append(len(whole) - OVERHEAD)
                ((event, data),) = self.tls.receive_bytes(whole)
                assert event == DATA
                got += data
        return lengths

    def close(self):
        self.sock.close()


@pytest.fixture
def client_of():
    made = []

    def make(edge, **options):
        made.append(RecordClient(edge, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_small_records_first(client_of):
    with serving(sized) as edge:
        client = client_of(edge)
        assert client.ask(100)[0] < 400                     # what is small anyway is one record
        lengths = client.ask(200_000)
        before = lengths[: next(i for i, n in enumerate(lengths) if n > 1369)]
        assert all(n <= 1369 for n in before)
        assert 60_000 < sum(before) <= 65536 + 1369
        assert max(lengths) == 16384
        assert client.ask(30_000)[0] > 1369                 # from now on full ones
        client.close()


def test_small_again_after_a_pause(client_of):
    with serving(sized, listener={"record_idle_ms": 200, "first_record": 500, "first_bytes": 5000}) as edge:
        client = client_of(edge)
        client.ask(20_000)
        assert max(client.ask(20_000)[:3]) > 500
        time.sleep(0.3)
        lengths = client.ask(20_000)
        assert max(lengths[:10]) == 500
        assert max(lengths) > 500
        client.close()


@pytest.mark.parametrize("listener", [{"first_bytes": 0}, {"first_record": 16384}])
def test_full_records_from_the_start(client_of, listener):
    with serving(sized, listener=listener) as edge:
        client = client_of(edge)
        assert max(client.ask(60_000)) > 1369
        client.close()


@pytest.mark.parametrize("limit", [64, 1000, 5000])
def test_a_clients_limit_holds_at_every_size(client_of, limit):
    with serving(sized) as edge:
        client = client_of(edge, record_size_limit=limit)
        for n in (10, 3000, 200_000):
            lengths = client.ask(n)
            assert max(lengths) <= limit - 1
        assert max(lengths) == limit - 1
        client.close()
