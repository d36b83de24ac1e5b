"""A worker's end of the fleet's register, with real Redis servers: what is asked of them, when they are believed, and
what waits for them."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from cext.tls.replay import DOWN, FRESH, SEEN, AwaitedRegister, SharedRegister

from edge.fleet import link as links
from edge.fleet import nodes, register
from edge.fleet.register import CLOCKS_MS, Asking, UnfitError, check, check_clock
from edge.fleet.settings import Fleet
from edge.schema import Place, read_table
from tests import redis_server
from tests.clock import Clock
from tests.e2e.processes import SANITIZED
from tests.redis_server import RedisServer

SECONDS = 30


class Plane:
    """What a worker has: a guest, and a gauge."""

    def __init__(self):
        self.guest = self
        self.register_up = False
        self.tasks = []

    @property
    def aio(self):
        return asyncio.get_running_loop()

    def run_coroutine(self, coroutine, done):
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(done)
        self.tasks.append(task)
        return task


class Call:
    def __init__(self, name):
        self.name = name.encode().hex().ljust(32, "0").encode()
        self.answered = asyncio.get_running_loop().create_future()
        self.at = time.monotonic()

    def answer(self, verdict):
        if not self.answered.done():
            self.answered.set_result(verdict)


class Host:
    """One worker of one host: Asking, and what it asks for."""

    def __init__(self, link, fleet, *, deadline=5000):
        self.plane = Plane()
        self.said = []
        self.link, self.fleet = link, fleet
        self.awaited = self.register(deadline)
        self.asking = Asking(self.plane, lambda level, message: self.said.append((level, message)))
        self.asking.follow(self.awaited, link, fleet)

    def register(self, deadline=5000):
        secret = self.link.secrets[0]
        local = SharedRegister(20_000, 1024)
        return AwaitedRegister(
            local, secret.register_identity(1), secret.fingerprint_key, 20_000 + 2 * CLOCKS_MS, deadline
        )

    async def until(self, condition, what="it"):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"not in time: {what}; {self.said}"
            await asyncio.sleep(0.005)

    async def up(self, is_up=True):
        await self.until(lambda: self.plane.register_up is is_up, f"register_up is {is_up}")

    def ask(self, *names):
        calls = [Call(name) for name in names]
        self.awaited.asker(calls)
        return calls

    async def answers(self, *names):
        return [await asyncio.wait_for(call.answered, SECONDS) for call in self.ask(*names)]

    async def close(self):
        self.asking.close()
        await asyncio.gather(*self.plane.tasks, return_exceptions=True)


@pytest.fixture
def make(tmp_path):
    """(a Link, a Fleet) for servers."""
    (tmp_path / "secret").write_bytes(bytes(range(48)))

    def made(*servers, **values):
        urls = [server if isinstance(server, str) else server.url for server in servers]
        at = Place(str(tmp_path / "edge.toml")).key("fleet")
        fleet = read_table(Fleet, {"secret_files": ["secret"], "redis": urls, **values}, at)
        return links.read(fleet, at), fleet

    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(register, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(nodes, "KNOWN_SECONDS", 0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture(autouse=True)
def empty(server):
    server.call("FLUSHALL")


def run(go):
    asyncio.run(asyncio.wait_for(go(), 2 * SECONDS))


@contextlib.asynccontextmanager
async def hosts(number, *made, **options):
    found = [Host(*made, **options) for _ in range(number)]
    try:
        for host in found:
            await host.up()
        yield found[0] if number == 1 else found
    finally:
        for host in found:
            await host.close()


def test_once_in_the_fleet(make, server):
    async def go():
        async with hosts(2, *make(server)) as (one, other):
            assert await one.answers("a", "b") == [FRESH, FRESH]
            assert await other.answers("b", "c", "a", "c") == [SEEN, FRESH, SEEN, SEEN]
            assert server.call("PTTL", b"edge:edge:early:" + Call("a").name) > 20_000

    run(go)


def test_asked_at_once_by_many(make, server):
    """Of all that ask for one at the same time at most one may take it."""

    async def go():
        async with hosts(5, *make(server)) as all_:
            for i in range(100):
                calls = [call for host in all_ for call in host.ask(f"{i}", f"{i}")]
                verdicts = [await call.answered for call in calls]
                assert sorted(verdicts) == [SEEN] * 9 + [FRESH]

    run(go)


def test_what_is_in_redis_says_nothing(make, server):
    """Names under a key of the fleet's, a mark, and nothing else."""

    async def go():
        async with hosts(1, *make(server, name="one")) as host:
            await host.answers("a")
            assert sorted(server.call("KEYS", "*")) == [b"edge:one:early", b"edge:one:early:" + Call("a").name]
            assert server.call("GET", b"edge:one:early:" + Call("a").name) == b"1"

    run(go)


def test_the_barrier_is_the_marks_and_lasts(make, server):
    """Who comes later is no later start: nothing has been lost since the first one came."""

    async def go():
        before = int(time.time() * 1000)
        async with hosts(1, *make(server)) as one:
            since = one.awaited.local.since
            assert before + CLOCKS_MS <= since <= int(time.time() * 1000) + CLOCKS_MS
        async with hosts(1, *make(server)) as other:
            assert other.awaited.local.since == since

    run(go)


def test_emptied(make, server):
    """The next answer is not believed, the barrier rises, and it is all over at the next look."""

    async def go():
        async with hosts(2, *make(server)) as (one, other):
            since = one.awaited.local.since
            assert await one.answers("a") == [FRESH]
            server.call("FLUSHALL")
            await asyncio.sleep(0)
            assert await other.answers("a") in ([DOWN], [SEEN])
            for host in (one, other):
                await host.until(lambda host=host: host.awaited.local.since > since, "a barrier that rises")
                await host.up()
            assert one.awaited.local.since == other.awaited.local.since
            assert await one.answers("b") == [FRESH]
            assert await other.answers("b") == [SEEN]

    run(go)


def test_another_life_of_the_same_server(make, server):
    """It was a replica for a moment: not a connection broke, and what it holds is another's."""

    async def go():
        async with hosts(1, *make(server)) as host:
            since = host.awaited.local.since
            server.call("REPLICAOF", "127.0.0.1", "1")
            server.call("REPLICAOF", "NO", "ONE")
            await host.until(lambda: host.awaited.local.since > since, "a barrier that rises")
            await host.up()
            assert await host.answers("a") == [FRESH]

    run(go)


def test_a_replica_is_not_asked(make, server):
    async def go():
        async with hosts(1, *make(server)) as host:
            server.call("REPLICAOF", "127.0.0.1", "1")
            try:
                await host.up(False)
                assert await host.answers("a") == [DOWN]
                assert "register of early data is down" in host.said[0][1]
            finally:
                server.call("REPLICAOF", "NO", "ONE")
            await host.up()

    run(go)


def test_late_and_back(make, server):
    """Who asks is not answered; after some it is down, and by itself up again."""

    async def go():
        async with hosts(1, *make(server), deadline=100) as host:
            server.pause()
            try:
                [call] = host.ask("a")
                await host.up(False)
                assert await call.answered == DOWN
                assert await host.answers("b") == [DOWN]
            finally:
                server.resume()
            await host.up()
            assert await host.answers("b") == [FRESH]
            said = [(level, message.partition(":")[0]) for level, message in host.said]
            assert said == [
                ("warning", "the fleet's register of early data is down, and early data refused"),
                ("info", "the fleet's register of early data is back"),
            ]
            assert "does not answer in time" in host.said[0][1]

    run(go)


def test_one_late_answer_is_nothing(make, server):
    async def go():
        async with hosts(1, *make(server), deadline=300) as host:
            with server.client() as client:
                client.execute_command("CLIENT", "PAUSE", "350", "WRITE")
            assert await host.answers("a") == [FRESH]  # to nobody: the handshake has gone on by then
            assert host.plane.register_up
            assert host.said == []

    run(go)


def test_a_server_that_dies_and_comes_back(make, tmp_path):
    async def go():
        with RedisServer(tmp_path) as own:
            async with hosts(1, *make(own)) as host:
                since = host.awaited.local.since
                assert await host.answers("a") == [FRESH]
                own.kill()
                await host.up(False)
                assert await host.answers("a") == [DOWN]
                own.start()
                await host.up()
                assert host.awaited.local.since > since
                assert len(host.said) == 2

    run(go)


def test_nobody_there(make):
    async def go():
        host = Host(*make("127.0.0.1:1"))
        await host.until(lambda: host.said, "a line in the log")
        assert not host.awaited.up
        assert await host.answers("a") == [DOWN]
        await asyncio.sleep(0.2)  # some probes more, of which none is told
        assert len(host.said) == 1
        await host.close()

    run(go)


def test_a_name_that_nobody_answers_for(make, monkeypatch):
    """It is asked for once at a time, and leaves the threads alone that others have need of."""
    asked, known = [], threading.Event()

    def look_up(name, *_, **__):
        asked.append(name)
        known.wait(SECONDS)
        raise socket.gaierror(-2, "Name or service not known")

    async def go():
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(nodes, "CONNECT_SECONDS", 0.02)
        host = Host(*make("redis.example:1"))
        try:
            await host.until(lambda: host.said, "a line in the log")
            await asyncio.sleep(0.5)  # many probes more
            assert asked == ["redis.example"]
            assert await asyncio.to_thread(lambda: 1) == 1
            known.set()
            await host.until(lambda: len(asked) > 1, "another look")
            assert not host.awaited.up
        finally:
            known.set()
            await host.close()

    run(go)


def test_workers_of_a_host_tell_once(make, server):
    async def go():
        async with hosts(1, *make(server)) as one:
            other = Host(one.link, one.fleet)
            other.awaited = AwaitedRegister(one.awaited.local, b"a fleet.", b"k" * 32, 22_000, 5000)
            other.asking.follow(other.awaited, other.link, other.fleet)
            await other.up()
            server.call("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-ttl")
            try:
                await one.up(False)
                await other.up(False)
            finally:
                server.call("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
            await one.up()
            await other.up()
            told = [message for host in (one, other) for _, message in host.said]
            assert len([message for message in told if "volatile-ttl" in message]) == 1
            assert len(told) == 2
            await other.close()

    run(go)


def test_replicas_have_it(make, server, tmp_path):
    async def go():
        with RedisServer(tmp_path) as replica:
            redis_server.replicate(replica, server)
            try:
                async with hosts(1, *make(server, replicas=1), deadline=500) as host:
                    assert await host.answers("a", "b", "a") == [FRESH, FRESH, SEEN]
                    assert replica.call("GET", b"edge:edge:early:" + Call("a").name) == b"1"
                    replica.pause()
                    host.awaited.asker(calls := [Call("c")])
                    try:
                        assert await calls[0].answered == DOWN
                    finally:
                        replica.resume()
                    replica.kill()
                    await host.up(False)
                    assert any(why in host.said[0][1] for why in ("replicas", "in time"))
            finally:
                server.call("REPLICAOF", "NO", "ONE")

    run(go)


def test_a_cluster(make, tmp_path):
    """Names are spread over its nodes; a node that goes takes its part with it, and the register down."""

    async def go():
        with redis_server.cluster(tmp_path) as members:
            async with hosts(2, *make(members[0], mode="cluster")) as (one, other):
                names = [f"{i}" for i in range(64)]
                spread = [f"{i % 256:02x}{i}" for i in range(64)]
                assert await one.answers(*names) == [FRESH] * 64
                assert await other.answers(*names) == [SEEN] * 64
                calls = [Call(name) for name in spread]
                for i, call in enumerate(calls):
                    call.name = f"{i:04x}".encode().ljust(32, b"0")
                one.awaited.asker(calls)
                assert [await call.answered for call in calls] == [FRESH] * 64
                assert all(member.call("DBSIZE") for member in members)
                members[1].kill()
                await one.up(False)
                assert one.awaited.up  # the other shards

    run(go)


ALLOWED = ("~edge:edge:*", "+set", "+get", "+info", "+time", "+wait")
"""As docs/fleet.md has it."""


def test_what_its_user_must_be_allowed(make, server, tmp_path):
    async def go():
        (tmp_path / "password").write_text("let me in\n")
        server.call("ACL", "SETUSER", "edge", "reset", "on", ">let me in", *ALLOWED)
        async with hosts(1, *make(server, username="edge", password_file="password")) as host:
            assert await host.answers("a", "a") == [FRESH, SEEN]
            server.call("ACL", "SETUSER", "edge", "-set")
            assert await host.answers("b") == [DOWN]
            await host.up(False)
            assert "NoPermission" in host.said[0][1]
            server.call("ACL", "SETUSER", "edge", "+set")
            await host.until(lambda: len(host.said) == 2)

    run(go)


def test_what_its_user_must_be_allowed_in_a_cluster(make, tmp_path):
    async def go():
        (tmp_path / "password").write_text("let me in\n")
        with redis_server.cluster(tmp_path, 1) as [node]:
            node.call("ACL", "SETUSER", "edge", "reset", "on", ">let me in", *ALLOWED, "+cluster|slots", "+command")
            async with hosts(1, *make(node, mode="cluster", username="edge", password_file="password")) as host:
                assert await host.answers("a", "a") == [FRESH, SEEN]

    run(go)


def test_sentinels_of_which_some_are_silent(make, server, tmp_path):
    """One that takes connections and says nothing is passed over, however often it is the first to be asked."""

    async def go():
        with socket.socket() as silent, redis_server.sentinel(tmp_path, server, "edge") as told:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            async with hosts(1, *make(address, told, mode="sentinel")) as host:
                assert await host.answers("a", "a") == [FRESH, SEEN]

    run(go)


@pytest.mark.parametrize("theirs", [True, False])
def test_a_clock_that_was_wrong(make, server, monkeypatch, theirs):
    """Entries expire by Redis's clock: if it was that one, what was taken is not relied on any more. A host whose own
    goes wrong while it asks is no trouble to the others."""

    async def go():
        async with hosts(1, *make(server)) as host:
            since, mark = host.awaited.local.since, server.call("GET", "edge:edge:early")
            monkeypatch.setattr(register, "_now", lambda: int(time.time() * 1000) + 2000)
            if theirs:  # no more time has passed there than before, but two seconds more have here
                monkeypatch.setattr(register, "_monotonic", lambda: int(time.monotonic() * 1000) + 2000)
            await host.up(False)
            assert "clock and this host's differ by 2.0 s" in host.said[0][1]
            monkeypatch.setattr(register, "_now", lambda: int(time.time() * 1000))
            await host.up()
            assert (host.awaited.local.since > since) is theirs
            assert (server.call("GET", "edge:edge:early") != mark) is theirs

    run(go)


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer must be the first library in a process")
def test_its_clock_leaps(make, monkeypatch, tmp_path):
    """So far that entries expire: the next answer says so, before anybody has looked, to all; also when the clock is
    right again by then."""
    clock = Clock(tmp_path)
    monkeypatch.setattr(register, "PROBE_SECONDS", 1e3)

    async def go():
        with RedisServer(tmp_path, inside=["env", *(f"{k}={v}" for k, v in clock.env.items())]) as server:
            async with hosts(3, *make(server)) as (one, other, third):
                since = one.awaited.local.since
                assert await one.answers("a", "b") == [FRESH, FRESH]
                clock.move(60)
                assert server.call("EXISTS", *(b"edge:edge:early:" + Call(name).name for name in "ab")) == 0
                assert await other.answers("a") == [DOWN]
                assert "clock and this host's differ by 60.0 s" in other.said[0][1]
                clock.move(0)
                assert await third.answers("b") == [DOWN]
                assert "entries have gone" in third.said[0][1]
                monkeypatch.setattr(register, "PROBE_SECONDS", 0.05)
                async with hosts(1, *make(server)) as later:
                    assert later.awaited.local.since > since

    run(go)


FAR = b"%d" % (1 << 50)


@pytest.mark.parametrize("said", [FAR, b"0" * 16 + FAR, b"9" * 5000, b"-5000", b"soon", b""])
def test_a_mark_that_is_none(make, server, said):
    """Or is of a time to come, which would end early data until then."""

    async def go():
        async with hosts(1, *make(server)) as host:
            mark = server.call("GET", "edge:edge:early")
            server.call("SET", "edge:edge:early", mark.rpartition(b" ")[0] + b" " + said)
            await host.until(lambda: host.said and host.plane.register_up, "a mark of its own")
            assert await host.answers("a") == [FRESH]
            assert host.awaited.local.since <= time.time() * 1000 + CLOCKS_MS
            assert "unforeseen" not in str(host.said)

    run(go)


def test_following_a_configuration(make, server, tmp_path):
    """What has not changed goes on; what has is asked anew, and who waited goes on without."""

    async def go():
        async with hosts(1, *make(server)) as host:
            asker = host.awaited.asker
            host.asking.follow(host.awaited, *make(server))
            assert host.awaited.asker == asker
            assert host.plane.register_up
            with RedisServer(tmp_path) as other:
                server.pause()
                try:
                    waiting = host.ask("a")
                    await asyncio.sleep(0)
                    host.asking.follow(host.awaited, *make(other))
                    assert not host.awaited.up
                    assert await waiting[0].answered == DOWN
                    await host.up()
                    assert await host.answers("a") == [FRESH]
                finally:
                    server.resume()
                assert other.call("DBSIZE") == 2
                host.asking.follow(None, None, None)
                assert host.awaited.asker is None
                assert not host.awaited.up
                assert not host.plane.register_up

    run(go)


def test_closing_leaves_nothing(make, server):
    async def go():
        before = asyncio.all_tasks()
        async with hosts(3, *make(server)):
            assert len(clients(server)) >= 3
        end = time.monotonic() + SECONDS
        while len(clients(server)) > 1:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    run(go)


def clients(server):
    listed = server.call("CLIENT", "LIST")
    return listed if isinstance(listed, list) else listed.decode().splitlines()


@pytest.mark.parametrize(
    ("said", "replicas", "why"),
    [
        ({"role": "slave"}, 0, "no master"),
        ({}, 0, "no master"),
        ({"role": "master", "maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, 0, "allkeys-lru"),
        ({"role": "master", "maxmemory_policy": "volatile-lru"}, 0, "volatile-lru"),
        ({"role": "master", "maxmemory": "0", "connected_slaves": "1"}, 2, "1 replicas, and is to have 2"),
        ({"role": "master", "maxmemory": "0"}, 1, "0 replicas"),
    ],
)
def test_what_is_not_relied_on(said, replicas, why):
    with pytest.raises(UnfitError, match=why):
        check(said, replicas)


@pytest.mark.parametrize(
    "said",
    [
        {"role": "master", "maxmemory": "0", "maxmemory_policy": "allkeys-lru"},  # without a limit nothing is evicted
        {"role": "master", "maxmemory": "5", "maxmemory_policy": "noeviction"},
    ],
)
def test_what_is(said):
    check(said, 0)


@pytest.mark.parametrize(
    ("theirs", "sent", "received", "right"),
    [
        (1000, 1000, 1000, True),
        (1000, 1500, 1600, True),
        (1000, 1501, 1600, False),
        (1500, 900, 1000, True),
        (1501, 900, 1000, False),
        (1_000_000, 5, 10, False),
    ],
)
def test_clocks(theirs, sent, received, right):
    if right:
        check_clock(theirs, sent, received)
        return
    with pytest.raises(UnfitError, match="clock"):
        check_clock(theirs, sent, received)
