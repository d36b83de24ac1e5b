"""Conn in many threads at once: no data is lost, and nobody waits for ever.

A watchdog bounds each test: what is stuck then has its stacks shown by faulthandler and fails.
"""

import contextlib
import faulthandler
import hashlib
import os
import random
import socket
import sys
import threading
import time

import pytest

from edge import tls
from tests.edge.tls_peers import Thread, connected, pair

SECONDS = float(os.environ.get("EDGE_STRESS_SECONDS", "2"))
WATCHDOG = 30


@pytest.fixture(autouse=True)
def watchdog():
    """The stacks of all threads, and the end of the process, when a test takes that long."""
    faulthandler.dump_traceback_later(WATCHDOG + SECONDS, exit=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change places between almost any two instructions
    yield
    sys.setswitchinterval(interval)
    faulthandler.cancel_dump_traceback_later()


def deadline():
    return time.monotonic() + SECONDS


class Counted:
    """How much went one way, and what of it: a digest of the stream."""

    def __init__(self):
        self.bytes = 0
        self.digest = hashlib.sha256()

    def add(self, data):
        self.bytes += len(data)
        self.digest.update(data)


def write_until(conn, end, sent, rng):
    """Blocks of random lengths; a KeyUpdate now and then, which the peer answers in its next flight."""
    while time.monotonic() < end:
        data = rng.randbytes(rng.choice([1, 100, 16384, 70000, 300_000]))
        conn.write(data)
        sent.add(data)
        if rng.random() < 0.2:
            conn.request_key_update()
    conn.close_write()


def read_all(conn, got, rng):
    while data := conn.read(rng.choice([1000, 16384, 100_000])):
        got.add(data)


def test_both_ways_at_once_with_key_updates():
    """Two writers that fill every buffer, two readers that must empty them: if a reader ever waited for a writer, both
    sides would stop."""
    end = deadline()
    sent, got = [Counted(), Counted()], [Counted(), Counted()]
    with connected() as sides:
        threads = []
        for i, conn in enumerate(sides):
            threads += [
                Thread(write_until, conn, end, sent[i], random.Random(i)),
                Thread(read_all, conn, got[1 - i], random.Random(10 + i)),
            ]
        for thread in threads:
            thread.finish(SECONDS + WATCHDOG)
    for out, arrived in zip(sent, got, strict=True):
        assert out.bytes == arrived.bytes > 0
        assert out.digest.digest() == arrived.digest.digest()


def stuck_writer(conn):
    """A thread that writes to a peer which does not read, once it is stuck."""
    conn.settimeout(WATCHDOG)
    writer = Thread(conn.write, bytes(20_000_000))
    while conn._write.acquire(blocking=False):  # until the writer has it
        conn._write.release()
        time.sleep(0.001)
    time.sleep(0.1)  # and its socket is full
    return writer


def test_a_reader_goes_on_while_its_writer_is_stuck():
    """Our writer waits for the peer to read, and the peer, before it does, for us to have read what it sends: with
    KeyUpdates in it that we answer."""
    with connected() as (ours, peer):
        writer = stuck_writer(ours)
        reader = Thread(count_to, ours, 8_000_000)
        for _ in range(80):
            peer._connection.request_key_update(True)
            peer.write(bytes(100_000))
        assert reader.finish() == 8_000_000
        assert writer.is_alive(), "it was stuck all the time"
        assert count_to(peer, 20_000_000) == 20_000_000
        writer.finish()


def test_a_readers_alert_does_not_wait_for_a_stuck_writer():
    with connected() as (ours, peer):
        writer = stuck_writer(ours)
        peer._sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(tls.AlertSent):
            Thread(ours.read).finish()
        assert writer.is_alive()
        with pytest.raises(tls.AlertReceived) as error:  # behind all that was sealed before
            count_to(peer, 20_000_001)
        assert error.value.alert == "bad_record_mac"
        with pytest.raises(tls.AlertSent):
            writer.finish()


def count_to(conn, n):
    got = 0
    while got < n:
        got += len(conn.read(65536))
    return got


def test_many_readers_and_writers_share_a_connection():
    """More than the rules promise: the data is mixed, never damaged."""
    block = bytes(range(256)) * 64
    writers, each = 8, 40
    with connected() as (client, server):
        counted = [Counted() for _ in range(8)]
        readers = [Thread(read_all, server, c, random.Random(i)) for i, c in enumerate(counted)]
        threads = [Thread(lambda: [client.write(block) for _ in range(each)]) for _ in range(writers)]
        for thread in threads:
            thread.finish()
        client.close_write()
        for reader in readers:
            reader.finish()
        assert sum(c.bytes for c in counted) == writers * each * len(block)


ACTIONS = {
    "read": lambda conn, rng: conn.read(rng.choice([1, 1000, 100_000])),
    "write": lambda conn, rng: conn.write(rng.randbytes(rng.choice([0, 1, 5000, 100_000]))),
    "handshake": lambda conn, rng: conn.handshake(),
    "confirm": lambda conn, rng: conn.confirm_handshake(),
    "state": lambda conn, rng: conn.connection_state(),
    "close_write": lambda conn, rng: conn.close_write() if rng.random() < 0.05 else None,
    "close": lambda conn, rng: conn.close() if rng.random() < 0.02 else None,
}


def act(conn, names, rng, end):
    while time.monotonic() < end:
        try:
            ACTIONS[rng.choice(names)](conn, rng)
        except (tls.TlsError, OSError):
            if conn._closed or conn._failure or conn._broken:
                return


@pytest.mark.parametrize("seed", range(4))
def test_anything_at_any_time_ends(seed):
    """Connections used by eight threads each, which do whatever comes to them; whoever is left waiting is freed by
    the closer, and every descriptor is closed."""
    rng = random.Random(seed)
    end = time.monotonic() + SECONDS / 2
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        with pair() as sides:
            threads = [
                Thread(act, conn, names, random.Random(rng.random()), time.monotonic() + 0.1)
                for conn in sides
                for names in (
                    ["read"],
                    ["write", "close_write"],
                    ["handshake", "confirm", "state"],
                    ["state", "close", "read", "write"],
                )
            ]
            time.sleep(rng.random() * 0.1)
            for conn in sides:
                conn.close()
            for thread in threads:
                thread.finish()
            assert all(conn._callers == 0 and conn._sock.fileno() == -1 for conn in sides)
    assert rounds


def test_closers_race():
    for _ in range(50):
        with connected() as (client, _):
            barrier = threading.Barrier(6)

            def work(call, barrier=barrier):
                barrier.wait()
                with contextlib.suppress(tls.ClosedError, ConnectionError):
                    call()

            calls = [client.close, client.close, client.abort, client.read, lambda c=client: c.write(b"x")]
            threads = [Thread(work, call) for call in [*calls, client.connection_state]]
            for thread in threads:
                thread.finish()
            assert client._sock.fileno() == -1


def test_a_stuck_peer_does_not_keep_a_closer():
    """Nothing is read on the other side: write, close_write and the handshake wait, close does not."""
    with pair() as (client, _):
        threads = [Thread(client.handshake), Thread(client.close_write), Thread(client.confirm_handshake)]
        time.sleep(0.05)
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 1
        for thread in threads:
            with pytest.raises(tls.ClosedError):
                thread.finish()


def test_the_order_of_the_locks_is_kept():
    """Every lock a thread takes stands after those it holds in the order that the module states."""
    order = ["_handshake", "_confirm", "_read", "_write", "_engine", "_state"]
    held = threading.local()
    breaches = []

    class Watched:
        def __init__(self, rank):
            self.rank, self.lock = rank, threading.Lock()

        def acquire(self, blocking=True):
            stack = held.__dict__.setdefault("ranks", [])
            if blocking and stack and max(stack) >= self.rank:
                breaches.append(([order[i] for i in stack], order[self.rank]))
            taken = self.lock.acquire(blocking)
            if taken:
                stack.append(self.rank)
            return taken

        def release(self):
            held.ranks.remove(self.rank)
            self.lock.release()

        def __enter__(self):
            self.acquire()

        def __exit__(self, *_):
            self.release()

    with pair() as sides:
        for conn in sides:
            for rank, name in enumerate(order):
                setattr(conn, name, Watched(rank))
        client, server = sides
        thread = Thread(lambda: (server.read(), server.write(b"b"), server.makefile().close()))
        client.write(b"a")
        assert client.read() == b"b"
        thread.finish()
        server._connection.request_key_update(True)
        server.write(b"c")
        assert client.read() == b"c"
        client.confirm_handshake()
        client.close_write()
        assert server.read() == b""
        server.shutdown(socket.SHUT_WR)
        client._sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        server.close()
        client.close()
    assert not breaches
