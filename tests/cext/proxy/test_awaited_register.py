"""Handshakes that wait for a register elsewhere: those that offer early data, no longer than they may, and no other."""

import contextlib
import queue
import threading
import time

import pytest
from cext.tls.replay import DOWN, FRESH, LATE, SEEN, AwaitedRegister, SharedRegister
from cext.tls.session import now

from tests.cext.proxy.harness import SECONDS, Client, get, until
from tests.cext.proxy.test_early_data import H1, H2, Seen, counted, early_edge, tls
from tests.cext.proxy.test_handshake_hooks import hooks
from tests.cext.proxy.waiting import Held
from tests.cext.tls.peer import server_config
from tests.early_client import EarlyClient, session_of


class Asked:
    """Who is asked. The test answers."""

    def __init__(self):
        self.batches = queue.SimpleQueue()

    def __call__(self, calls):
        self.batches.put(calls)

    def next(self):
        [call] = self.batches.get(timeout=SECONDS)
        return call


@contextlib.contextmanager
def awaiting(seen, asker, *, deadline=SECONDS * 1000, most=64, up=True, policy=False, **more):
    register = AwaitedRegister(SharedRegister(20_000, 4096), b"a fleet.", b"k" * 32, 22_000, deadline, most)
    register.asker, register.up = asker, up
    config = server_config(alpn=(b"h2", b"http/1.1"), policy=policy, **tls(replay=register))
    with early_edge(seen, tls=config, **more) as edge:
        edge.register = register
        yield edge


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def edge(seen, asked):
    with awaiting(seen, asked) as edge:
        yield edge


@pytest.fixture(params=[H1, H2], ids=["1.1", "2"])
def kind(request):
    return request.param


def answer(edge, call, verdict):
    edge.call(lambda: call.answer(verdict))


def refused(edge, cause):
    until(lambda: edge.counters()[f"early_refused_{cause}"] == 1)


def test_taken(edge, asked, seen, kind):
    """What came while the register was waited for is read then, and forwarded before the client's Finished."""
    session = session_of(edge.port, alpn=kind.protocol)
    with kind(edge, session) as client:
        client.ask(("GET", "/f/a"))
        call = asked.next()
        assert len(call.name) == 32
        assert edge.counters()["handshakes_waiting"] == 1
        assert seen.requests == []
        answer(edge, call, FRESH)
        assert client.status(0) == 200
        client.client.confirm()
        client.ask(("GET", "/f/b"))
        assert client.status(1) == 200
        answer(edge, call, SEEN)  # a second time: nothing
    counted(edge, offered=1, accepted=1, forwarded=1)
    counters = edge.counters()
    assert [counters[f"register_{what}"] for what in ("asked", "taken", "replayed", "late")] == [1, 1, 0, 0]
    assert counters["handshakes_waiting"] == 0


@pytest.mark.parametrize(
    ("verdict", "cause"), [(SEEN, "replayed"), (DOWN, "register_down"), (LATE, "register_late")]
)
def test_not_taken(edge, seen, kind, verdict, cause):
    session = session_of(edge.port, alpn=kind.protocol)
    with kind(edge, session) as client:
        client.ask(("GET", "/f/a"))
        answer(edge, edge.register.asker.next(), verdict)
        assert not client.client.flight()
        client.client.confirm()
        refused(edge, cause)
    edge.until_idle()
    assert seen.requests == []


def test_late(asked, seen, kind):
    """The deadline is the client's round trip: the handshake goes on, whoever is asked."""
    with awaiting(seen, asked, deadline=50) as edge:
        session = session_of(edge.port, alpn=kind.protocol)
        with kind(edge, session) as client:
            client.ask(("GET", "/f/a"))
            assert not client.client.flight()
            call = asked.next()
            answer(edge, call, FRESH)  # too late
            client.client.confirm()
            refused(edge, "register_late")
            assert edge.counters()["register_late"] == 1
        edge.until_idle()
        assert seen.requests == []


def test_the_local_register_answers_replays(edge, asked, seen):
    with H1(edge) as client:
        client.ask(("GET", "/f/a"))
        call = asked.next()
        with EarlyClient(edge.port) as replaying:
            replaying.sock.sendall(client.client.first)
            assert replaying.sock.recv(1)  # its handshake goes on while the first one's waits
        refused(edge, "replayed")
        answer(edge, call, FRESH)
        assert client.status(0) == 200
    assert edge.counters()["register_asked"] == 1
    assert len(seen.requests) == 1


def test_who_offers_none_does_not_wait(edge, asked):
    with Client(edge) as client:
        assert client.ask(get("/a")).status == 200
    session = session_of(edge.port)
    with EarlyClient(edge.port, session, early=False) as client:
        client.confirm()
        client.send(get("/b"))
        assert client.recv(12) == b"HTTP/1.1 200"
    assert edge.counters()["register_asked"] == 0
    assert asked.batches.empty()


def test_all_of_a_turn_are_asked_together(edge, asked):
    """And answered in any order."""
    sessions = [session_of(edge.port) for _ in range(8)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(EarlyClient(edge.port, session)) for session in sessions]
        # In the loop's thread: all have come when it looks again.
        edge.call(lambda: [client.send(get("/f/a")) for client in clients])
        batches = []
        while sum(map(len, batches)) < 8:
            batches.append(asked.batches.get(timeout=SECONDS))
        calls = [call for batch in batches for call in batch]
        assert len(batches) < 8
        assert len({call.name for call in calls}) == 8
        assert edge.counters()["handshakes_waiting"] == 8
        for call in reversed(calls):
            answer(edge, call, FRESH)
        for client in clients:
            assert client.flight()
            client.confirm()
        counted(edge, accepted=8)


def test_no_more_wait_than_may(asked, seen):
    with awaiting(seen, asked, most=2) as edge:
        sessions = [session_of(edge.port) for _ in range(3)]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(EarlyClient(edge.port, session)) for session in sessions]
            calls = []
            for client in clients[:2]:
                client.send(get("/f/a"))
                calls.append(asked.next())
            clients[2].send(get("/f/a"))
            assert not clients[2].flight()
            clients[2].confirm()
            refused(edge, "register_late")
            answer(edge, calls[0], FRESH)
            answer(edge, calls[1], DOWN)
            assert clients[0].flight() and not clients[1].flight()
            with EarlyClient(edge.port, session_of(edge.port)) as client:  # there is room again
                client.send(get("/f/a"))
                answer(edge, asked.next(), FRESH)
                assert client.flight()


def test_down_nobody_waits(asked, seen):
    with awaiting(seen, asked, up=False) as edge:
        with EarlyClient(edge.port, session_of(edge.port)) as client:
            client.send(get("/f/a"))
            assert not client.flight()
            client.confirm()
            refused(edge, "register_down")
        assert asked.batches.empty()
        assert edge.counters()["register_asked"] == 0


@pytest.mark.parametrize("asker", [None, lambda calls: calls.no_such_thing], ids=["none", "raises"])
def test_an_asker_that_is_none(seen, asker):
    """One that fails costs a deadline, and is told of."""
    with awaiting(seen, asker, deadline=100) as edge:
        with EarlyClient(edge.port, session_of(edge.port)) as client:
            client.send(get("/f/a"))
            assert not client.flight()
            client.confirm()
            refused(edge, "register_late" if asker else "register_down")
        told = [text for _, text in edge.errors]
        assert any("register of early data: AttributeError" in text for text in told) == bool(asker)
        assert edge.counters()["handshakes_waiting"] == 0


def test_a_client_that_goes(edge, asked, seen):
    """Its wait ends with it; an answer that comes then is nobody's."""
    client = EarlyClient(edge.port, session_of(edge.port))
    client.send(get("/f/a"))
    call = asked.next()
    client.close()
    edge.until_idle()
    assert edge.counters()["handshakes_waiting"] == 0
    answer(edge, call, FRESH)
    assert seen.requests == []
    counters = edge.counters()
    assert [counters[f"register_{what}"] for what in ("asked", "taken", "late")] == [1, 0, 0]


def test_the_handshakes_own_limit(asked, seen):
    with awaiting(seen, asked, listener={"handshake_ms": 200}) as edge:
        with EarlyClient(edge.port, session_of(edge.port)) as client:
            client.send(get("/f/a"))
            call = asked.next()
            began = time.monotonic()
            with pytest.raises((AssertionError, OSError)):
                client.flight()
            assert time.monotonic() - began < SECONDS
        edge.until_idle()
        answer(edge, call, FRESH)
        assert edge.counters()["timeouts"] == 1


def test_a_worker_that_stops(asked, seen):
    with awaiting(seen, asked) as edge:
        with EarlyClient(edge.port, session_of(edge.port)) as client:
            client.send(get("/f/a"))
            asked.next()
            edge.stop()
        assert edge.counters()["handshakes_waiting"] == 0


def test_a_worker_that_drains(asked, seen):
    """Who waits is served still."""
    with awaiting(seen, asked) as edge:
        with H1(edge) as client:
            client.ask(("GET", "/f/a"))
            call = asked.next()
            edge.call(lambda: edge.plane.drain(SECONDS * 1000))
            answer(edge, call, FRESH)
            assert client.status(0) == 200
            client.client.confirm()
        assert edge.ended.wait(SECONDS)


def test_after_the_hooks_of_the_handshake(asked, seen):
    """A hook is waited for, then the register: by the same connection."""
    held = Held()

    async def client_hello(hello):
        return await held(hello)

    with awaiting(seen, asked, policy=True, hooks=hooks(client_hello=client_hello)) as edge:
        session = through(held, lambda: session_of(edge.port))
        with H1(edge, session) as client:
            client.ask(("GET", "/f/a"))
            _, decide = held.next()
            assert asked.batches.empty()
            decide(None)
            answer(edge, asked.next(), FRESH)
            assert client.status(0) == 200
        edge.until_idle()
        assert edge.counters()["handshakes_waiting"] == 0


def through(held, act):
    """act(), with the one hook that it leads to answered."""
    found = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    held.next()[1](None)
    thread.join(SECONDS)
    return found[0]


def test_a_barrier_that_is_raised_meanwhile(edge, asked):
    with EarlyClient(edge.port, session_of(edge.port)) as client:
        client.send(get("/f/a"))
        call = asked.next()
        edge.register.local.raise_barrier(now() + 60_000)
        answer(edge, call, FRESH)
        assert not client.flight()
        client.confirm()
        refused(edge, "just_started")
