"""Early data once in a whole fleet: real hosts, a real Redis, and everything that can befall it.

Whatever happens, a flight that is sent to all hosts at once is accepted by one of them at most; handshakes go on within
the deadline and a little; other connections notice nothing; and it is all over by itself when the fault is.
"""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from tests.e2e.processes import wait_until
from tests.fleet.fleet import Fleet
from tests.fleet.redis_servers import REDIS, Redis, Sentinel, settle
from tests.fleet.replays import Pulse, Replays

DEADLINE = 0.1
WINDOW = "1s"
NOTICED = 2.0
"""Seconds that nobody may wait longer for, on a busy machine."""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets")
    for name in ("fleet", "tickets"):
        (directory / name).write_bytes(name.encode() * 10)
    return directory


def tables(secrets, redis, *, window=WINDOW, tickets=None, **fleet):
    return {
        "fleet": {
            "secret_files": [secrets / "fleet"],
            "redis": redis,
            "deadline": f"{int(DEADLINE * 1000)}ms",
            "share": ["early-data"],
            **fleet,
        },
        "tls": {
            "early_data": {"window": window},
            "tickets": {"secret_file": tickets or secrets / "tickets"},
        },
    }


@pytest.fixture(scope="module")
def alone(net, redis, secrets, pki, tmp_path_factory):
    """A fleet whose Redis has no replica."""
    with Fleet(net, tmp_path_factory.mktemp("fleet"), pki, tables(secrets, [redis.url])) as fleet:
        yield fleet


@pytest.fixture
def fleet(alone, redis):
    """It, as it is when all is well."""
    ready(alone)
    return alone


def ready(fleet):
    """All are up, and take early data: what was the case before the register was there is over."""
    for server in fleet.servers:
        server.wait_register()
    for server in fleet.servers:
        wait_until(lambda s=server: takes(fleet, s, fleet.session(s)), 30, f"{server.host.address} takes early data")


def takes(fleet, server, session):
    """Whether a server accepts early data under it."""
    with fleet.client(server, session) as client:
        client.send(b"GET /taken HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        return client.flight()


def replayed(server):
    return server.counters()["refused"].get("replayed", 0)


class Faulty:
    """Flights at all hosts at once, and a pulse on each, while something is wrong."""

    def __init__(self, fleet, tries=100_000):
        self.fleet = fleet
        self.fleet.backend.early.clear()
        self.replays = Replays(fleet)
        self._end = threading.Event()
        self._failed = []
        self._thread = threading.Thread(target=self._run, args=(tries,), daemon=True)

    def _run(self, tries):
        try:
            self.replays.run(tries, until=self._end)
        except Exception as e:  # told by the test's thread
            self._failed.append(e)

    def __enter__(self):
        self._pulse = Pulse(self.fleet).__enter__()
        self._thread.start()
        self.some()
        return self

    def some(self, more=20):
        """Waits for so many further tries."""
        goal = self.replays.tries + more
        wait_until(lambda: self._failed or self.replays.tries >= goal, 60, "tries")

    def __exit__(self, kind, *_):
        self._end.set()
        self._thread.join(60)
        self._pulse.__exit__()
        if kind is not None:
            return
        assert self._failed == []
        print(f"\n{self.replays.outcome()}; {self._pulse.count} other requests within {self._pulse.longest:.3f} s each")
        assert max(self.replays.waits) < DEADLINE + NOTICED
        assert self._pulse.faults == []
        assert self._pulse.longest < NOTICED


def down(fleet, servers, pattern, marks):
    """These say so, once, and count it."""
    for server in servers:
        server.wait_register(up=False)
        server.wait_error(f"register of early data is down.*{pattern}", marks[server], seconds=30)


def back(servers, marks):
    for server in servers:
        server.wait_register()
        server.wait_error("register of early data is back", marks[server], seconds=30)


def marks_of(fleet):
    return {server: server.mark() for server in fleet.servers}


def said_once(server, since):
    said = [message for _, message in server.errors(since) if "register of early data" in message]
    assert [("down" in message) for message in said] == [True, False], said


# ---- all is well


def test_a_ticket_of_one_host_is_good_on_another_once(fleet):
    first, second, third = fleet.servers
    session = fleet.session(first)
    assert takes(fleet, second, session)
    assert takes(fleet, third, session)  # another ClientHello
    before = sum(map(replayed, fleet.servers))
    replays = Replays(fleet)
    replays.one(session, 0)
    wait_until(lambda: replays.accepted()[1] == 1, 10, "one that is accepted")
    replays.close()
    wait_until(lambda: sum(map(replayed, fleet.servers)) == before + 2, 10, "two that are replayed")


def test_the_same_flight_at_all_hosts(fleet):
    """A fast version of the one below."""
    at_once(fleet, 300)


@pytest.mark.slow
def test_the_same_flight_at_all_hosts_ten_thousand_times(fleet):
    at_once(fleet, 10_000)


def at_once(fleet, tries):
    fleet.backend.early.clear()
    for server in fleet.servers:  # those of before are counted when they end
        wait_until(lambda s=server: s.counters()["connections_open"] == 0, 20, "no connections")
    before = [server.counters() for server in fleet.servers]
    began = time.monotonic()
    replays = Replays(fleet).run(tries)
    seconds = time.monotonic() - began
    wait_until(lambda: sum(replays.accepted().values()) == tries, 10, "all")
    wait_until(lambda: replays.accepted()[0] < tries * 0.05, 10, "early data that is taken")
    print(f"\n{replays.outcome()}; in {seconds:.1f} s")

    def counted():
        after = [server.counters() for server in fleet.servers]
        return sum(b["early_accepted"] - a["early_accepted"] for a, b in zip(before, after, strict=True))

    wait_until(lambda: counted() == replays.accepted()[1], 20, "what the servers have counted")


def test_a_reload_that_changes_the_fleet(fleet, redis, net):
    """Without a request that fails: another deadline, no fleet for a while, and one again."""
    server, *others = fleet.servers
    table = server.tables["fleet"]
    with Faulty(fleet) as flights:
        for changed, said in (
            ({**table, "deadline": "200ms"}, "fleet.deadline changed"),
            ({}, "fleet removed"),
            (table, "fleet added"),
        ):
            server.tables["fleet"] = changed
            since = server.mark()
            server.write()
            server.reload()
            server.wait_error(f"generation [0-9]+ serves.*{said}", since, seconds=30)
            flights.some()
            if changed:
                server.wait_register()
            else:
                assert server.counters()["register_up"] == 0
                session = fleet.session(server)
                assert not any(takes(fleet, other, session) for other in others), "another register"
    ready(fleet)


def test_a_host_that_starts_again(fleet):
    """Nothing was lost meanwhile, as the register is Redis's: tickets of before the start have early data at once."""
    server, other, _ = fleet.servers
    before, elsewhere = fleet.session(server), fleet.session(other)
    server.stop()
    server.start()
    server.wait_register()
    assert takes(fleet, server, before)
    assert takes(fleet, server, elsewhere)
    [worker] = server.workers()
    os.kill(worker, signal.SIGTERM)  # and one that is replaced
    wait_until(lambda: worker not in server.workers() and server.workers(), 30, "another worker")
    server.wait_register()
    assert takes(fleet, server, before)


# ---- what befalls Redis


def test_killed(fleet, redis):
    marks = marks_of(fleet)
    with Faulty(fleet) as flights:
        redis.kill()
        down(fleet, fleet.servers, "Connection", marks)
        flights.some()
        assert not any(takes(fleet, server, fleet.session(server)) for server in fleet.servers)
        redis.start()  # it has forgotten everything
        back(fleet.servers, marks)
        flights.some()
    for server in fleet.servers:
        said_once(server, marks[server])
        assert server.counters()["refused"]["register_down"] > 0
    ready(fleet)


def test_stopped(fleet, redis):
    marks = marks_of(fleet)
    with Faulty(fleet) as flights:
        redis.pause()
        try:
            down(fleet, fleet.servers, "does not answer in time", marks)
            flights.some()
        finally:
            redis.resume()
        back(fleet.servers, marks)
        flights.some()
    late = sum(server.counters()["refused"].get("register_late", 0) for server in fleet.servers)
    assert late >= 1
    for server in fleet.servers:
        said_once(server, marks[server])
    ready(fleet)


def test_a_host_that_is_cut_off(fleet, redis):
    """It goes on alone, without early data; the others do not notice."""
    alone, *others = fleet.servers
    marks = marks_of(fleet)
    with Faulty(fleet) as flights, alone.host.cut_off(redis.host):
        down(fleet, [alone], "", marks)
        flights.some()
        assert all(server.counters()["register_up"] for server in others)
        taken = sum(server.counters()["register_taken"] for server in others)
        wait_until(lambda: sum(s.counters()["register_taken"] for s in others) > taken + 5, 30, "others take it")
    back([alone], marks)
    ready(fleet)


def test_answers_that_do_not_arrive(fleet, redis):
    """The entries are made, and nobody hears of it."""
    alone, *_ = fleet.servers
    marks = marks_of(fleet)
    with Faulty(fleet) as flights:
        redis.host.mute(alone.host)
        try:
            down(fleet, [alone], "", marks)
            flights.some()
        finally:
            redis.host.unmute(alone.host)
        back([alone], marks)
    ready(fleet)


def test_emptied(fleet, redis):
    """FLUSHALL: not a connection breaks, and what was taken is gone. The next answer tells."""
    marks = marks_of(fleet)
    with Faulty(fleet) as flights:
        redis.ask("FLUSHALL")
        for server in fleet.servers:
            server.wait_error("register of early data is down.*its entries have gone", marks[server], seconds=30)
        flights.some()
        back(fleet.servers, marks)
    ready(fleet)


def test_one_that_may_evict_is_not_asked(fleet, redis):
    marks = marks_of(fleet)
    redis.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    try:
        down(fleet, fleet.servers, "maxmemory-policy is allkeys-lru", marks)
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        back(fleet.servers, marks)
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    ready(fleet)


def test_a_full_redis(fleet, redis):
    """It evicts nothing, and takes nothing."""
    marks = marks_of(fleet)
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with Faulty(fleet) as flights:
            down(fleet, fleet.servers, "OutOfMemory|OOM", marks)
            flights.some()
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    back(fleet.servers, marks)
    ready(fleet)


@pytest.mark.slow
def test_ten_thousand_flights_while_everything_befalls_it(fleet, redis):
    """In no order, and before the fault before is over."""
    with Faulty(fleet) as flights:
        while flights.replays.tries < 10_000:
            what = random.choice([killing, pausing, emptying, cutting, muting])
            with what(fleet, redis):
                flights.some(random.randrange(1, 200))
            flights.some(random.randrange(1, 1000))
    assert flights.replays.accepted()[1] > 1000
    ready(fleet)


@contextlib.contextmanager
def killing(_, redis):
    redis.kill()
    yield
    redis.start()


@contextlib.contextmanager
def pausing(_, redis):
    redis.pause()
    yield
    redis.resume()


@contextlib.contextmanager
def emptying(_, redis):
    redis.ask("FLUSHALL")
    yield


def cutting(fleet, redis):
    return random.choice(fleet.servers).host.cut_off(redis.host)


@contextlib.contextmanager
def muting(fleet, redis):
    host = random.choice(fleet.servers).host
    redis.host.mute(host)
    yield
    redis.host.unmute(host)


# ---- replicas


@pytest.fixture(scope="module")
def pair(net, tmp_path_factory):
    """A master, its replica, three sentinels."""
    directory = tmp_path_factory.mktemp("pair")
    master = Redis(net, net.host(REDIS + 1), directory / "master")
    of = f"{master.address} {master.port}"
    replica = Redis(net, net.host(REDIS + 2), directory / "replica", replicaof=of)
    sentinels = [Sentinel(net, net.host(REDIS + 3 + i), directory / f"sentinel{i}", master, 2) for i in range(3)]
    servers = [master, replica]
    with contextlib.ExitStack() as stack:
        for one in (*servers, *sentinels):
            stack.callback(one.kill)
        settle(master, [replica], sentinels)
        yield servers, sentinels


def test_failed_over(net, pair, secrets, pki, tmp_path):
    (master, replica), sentinels = pair
    addresses = [sentinel.url for sentinel in sentinels]
    # Three further hosts would be as good: those of the fleet above have other numbers.
    with Fleet(
        net, tmp_path, pki, tables(secrets, addresses, mode="sentinel", service="edge", replicas=1), first=50
    ) as fleet:
        ready(fleet)
        marks = marks_of(fleet)
        with Faulty(fleet) as flights:
            master.kill()
            down(fleet, fleet.servers, "", marks)
            wait_until(lambda: replica.info("role") == "master", 30, "a failover")
            flights.some()
            # The new master has no replica that could lose it again: with replicas = 1 nothing is taken.
            assert all(server.counters()["register_up"] == 0 for server in fleet.servers)
            master.start()
            master.ask("REPLICAOF", replica.address, replica.port)
            back(fleet.servers, marks)
            flights.some()
        ready(fleet)
