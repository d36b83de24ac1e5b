"""What a connection holds, and that it holds no more after many requests."""

from pathlib import Path

from cext.proxy.exchange import Exchange
from cext.proxy.frontend import ClientConnection
from cext.proxy.h1_session import H1Session
from cext.proxy.h1_tunnel import H1Tunnel
from cext.proxy.h1_upstream import H1Request, H1Upstream
from cext.proxy.tunnel import Tunnel
from cext.tls.connection import Connection

from tests.cext.proxy.harness import Client, get, reply, serving

WARMING = 2400
REQUESTS = 4800     # a leak of 64 bytes in each of these is 300 KiB
ROUNDS = 4


def test_an_idle_connection_is_three_small_objects():
    assert sum(kind.__basicsize__ for kind in (ClientConnection, H1Session, Connection)) <= 1100
    assert Exchange.__basicsize__ <= 392
    assert H1Upstream.__basicsize__ + H1Request.__basicsize__ <= 440


def test_an_idle_tunnel_is_both_ends_and_one_object_between():
    kinds = (ClientConnection, H1Tunnel, Connection, Tunnel, H1Upstream, H1Request)
    assert sum(kind.__basicsize__ for kind in kinds) <= 1900


def private_kib():
    """This process's memory of its own."""
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Dirty:", "Private_Clean:")))


def test_requests_leave_nothing_behind():
    """Trailers, large heads, bodies and refused routes among them; two connections serve all of it."""
    def counting(conn):
        """Counts heads: the requests have no bodies."""
        left = b""
        while got := conn.sock.recv(65536):
            left += got
            n = left.count(b"\r\n\r\n")
            if n:
                left = left[left.rfind(b"\r\n\r\n") + 4:]
                conn.send(answers[conn.number % 2] * n)

    answers = (
        reply(b"y" * 700),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: " + b"t" * 300 + b"\r\n\r\n",
    )
    batch = get("/some/path?and=query", "X-Large: " + "z" * 2000) * 20
    with serving(counting, keep_log=False) as edge, Client(edge) as one, Client(edge) as two:
        def ask(requests):
            """-> KiB that this process has more afterwards."""
            before = private_kib()
            for _ in range(requests // 40):
                for client in (one, two):
                    client.send(batch)
                for client in (one, two):
                    for _ in range(20):
                        assert client.response().status == 200
            return private_kib() - before

        sanitized = "libasan" in Path("/proc/self/maps").read_text()    # which keeps freed memory
        grown = [ask(WARMING)]
        while not sanitized and (len(grown) == 1 or grown[-1] > 200):   # what warms up, in any thread, comes to an end
            assert len(grown) <= ROUNDS, f"each round takes more memory: {grown} KiB"
            grown.append(ask(REQUESTS))
        assert edge.chunks_in_use() == 0
        assert edge.counters()["upstream_connects"] <= 4
