"""HTTP/2 on both sides, with servers and clients that do anything in any order: every request ends, nothing is left."""

import contextlib
import random
import ssl
import threading

import pytest

from tests import h2_peer
from tests.cext.proxy.harness import Client, H2Client, get, post, serving
from tests.cext.proxy.test_h2_upstream import Origin
from tests.h2_peer import END_STREAM, frame, reset, settings, window

STREAMS = 8
CUT = EOFError, ConnectionError, ssl.SSLError      # but no TimeoutError: nothing hangs


def wild(seed):
    """A server that answers each stream in steps of its own, and now and then does something worse."""
    def script(conn):
        chance = random.Random(f"{seed} {conn.number}")
        at = Origin(conn, hold=chance.random() < 0.3, max_concurrent_streams=chance.choice((1, 3, 100)))
        open_ = {}
        conn.sock.settimeout(0.005)
        while True:
            with contextlib.suppress(TimeoutError):
                at.step()
            for s, r in at.responses.items():
                if s not in at.taken and r.fields and (r.ended or chance.random() < 0.5):
                    at.taken.add(s)
                    open_[s] = 0
            for s in list(open_):
                if at.responses[s].reset is not None or act(at, s, open_, chance):
                    del open_[s]
            if chance.random() < 0.004:
                return
            if chance.random() < 0.01:
                at.send(settings(max_concurrent_streams=chance.choice((0, 2, 50))))
            if chance.random() < 0.01:
                at.send(frame(h2_peer.PING, 0, 0, bytes(8)), window(0, 1))
            if chance.random() < 0.01:
                last = max([0, *at.taken])
                at.send(frame(h2_peer.GOAWAY, 0, 0, chance.choice((0, last)).to_bytes(4, "big") + bytes(4)))

    return script


def act(at, s, open_, chance):
    """One step of a response -> whether it is over."""
    what = chance.random()
    if what < 0.03:
        at.send(reset(s, chance.choice((h2_peer.REFUSED_STREAM, h2_peer.CANCEL, h2_peer.NO_ERROR))))
        return True
    if open_[s] == 0:
        if what < 0.2:
            at.send(at.head(s, [(":status", "103"), ("link", "</a>")], end=False))
            return False
        if what < 0.25:
            at.send(at.head(s, [(":status", "200"), ("grpc-status", "1")], end=True))
            return True
        at.send(at.head(s, [(":status", "200")], end=False))
        open_[s] = 1
    elif what < 0.7:
        room = min(at.room(s), at.room(0), chance.choice((1, 1000, 16384)))
        if room > 0:
            at.send(frame(h2_peer.DATA, 0, s, bytes(room)))
            at.windows[s], at.windows[0] = at.room(s) - room, at.room(0) - room
    elif what < 0.8:
        at.send(frame(h2_peer.DATA, END_STREAM, s))
        return True
    elif what < 0.85:
        at.send(at.head(s, [("x-sum", "1")], end=True))
        return True
    return False


def ask_by_h2(edge, seed, ended):
    chance = random.Random(seed)
    with H2Client(edge, receive_buffer=chance.choice((4096, 65536))) as client, contextlib.suppress(*CUT):
        streams = []
        for n in range(STREAMS):
            body = bytes(chance.choice((0, 10, 20000)))
            streams.append(client.get(f"/{n}") if chance.random() < 0.5 else client.post(body, f"/{n}"))
            if chance.random() < 0.1:
                client.send(reset(chance.choice(streams)))
        for stream in streams:
            response = client.responses[stream]
            client.until(lambda r=response: r.ended or r.reset is not None or chance.random() < 0.002)
    ended.append("h2")


def ask_by_h1(edge, seed, ended):
    chance = random.Random(seed)
    for n in range(STREAMS):
        with Client(edge) as client, contextlib.suppress(*CUT):
            client.send(get(f"/{n}") if chance.random() < 0.5 else post(bytes(chance.choice((0, 20000)))))
            while client.head().status == 103:
                pass
            if chance.random() < 0.8:
                client.rest()
    ended.append("h1")


@pytest.mark.parametrize("seed", range(3))
def test_anything_in_any_order(seed):
    ended = []
    with serving(wild(seed), wild(seed + 100), pool={"protocol": "h2c", "max_connections": 3, "idle_ms": 200},
                 listener={"keepalive_ms": 300}, connect_ms=400, first_byte_ms=500, body_idle_ms=500, write_idle_ms=500,
                 keep_log=False) as edge:
        threads = [threading.Thread(target=ask, args=(edge, f"{seed} {n}", ended), daemon=True)
                   for n, ask in enumerate((ask_by_h2, ask_by_h2, ask_by_h1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(ended) == ["h1", "h2", "h2"]
        edge.until_idle()
        assert edge.chunks_in_use() == 0
