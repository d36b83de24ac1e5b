"""What hosts tell each other at once, with real Redis servers: through a server, sentinels and a cluster; when the
connection breaks, or is silent; and without the right to it."""

import asyncio
import contextlib

import pytest
import redis

from edge.fleet import link as links
from edge.fleet import news as channels
from edge.fleet.news import News
from edge.fleet.settings import Fleet
from edge.schema import Place, read_table
from tests import redis_server
from tests.e2e.processes import wait_until
from tests.redis_server import RedisServer

SECONDS = 30
KEY = "edge:edge:tickets"


@pytest.fixture
def make(tmp_path):
    """A Link to servers."""
    (tmp_path / "secret").write_bytes(bytes(range(48)))

    def made(*servers, **values):
        at = Place(str(tmp_path / "edge.toml")).key("fleet")
        urls = [server.url for server in servers]
        fleet = read_table(Fleet, {"secret_files": ["secret"], "redis": urls, **values}, at)
        return links.read(fleet, at)

    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(channels, "SURE_SECONDS", 0.1)
    monkeypatch.setattr(channels, "ANSWER_SECONDS", SECONDS)
    monkeypatch.setattr(channels, "AGAIN_SECONDS", (0.05, 0.1))
    monkeypatch.setattr(channels, "REFUSED_SECONDS", 0.1)


class Listener:
    def __init__(self, link):
        self.times = 0
        self.news = News(link, KEY, self._heard)

    def _heard(self):
        self.times += 1

    async def until(self, condition):
        async with asyncio.timeout(SECONDS):
            while not condition(self):
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def listening(*made):
    found = [Listener(link) for link in made]
    try:
        for one in found:
            await one.until(lambda one: one.times)
        yield found
    finally:
        for one in found:
            await one.news.close()


def run(go):
    asyncio.run(asyncio.wait_for(go(), 2 * SECONDS))


async def published(server, *listeners):
    """All hear it."""
    before = [one.times for one in listeners]
    await asyncio.to_thread(server.call, "PUBLISH", KEY, "")
    for one, times in zip(listeners, before, strict=True):
        await one.until(lambda one, times=times: one.times > times)


async def heard_of(server, one):
    """Sooner or later."""
    before = one.times
    async with asyncio.timeout(SECONDS):
        while one.times == before:
            await asyncio.to_thread(server.call, "PUBLISH", KEY, "")
            await asyncio.sleep(0.05)


def fails_over(sentinel):
    with contextlib.suppress(redis.ResponseError):  # until it knows the replica
        return sentinel.call("SENTINEL", "FAILOVER", "edge")


def test_all_hear_it(make, server):
    async def go():
        async with listening(make(server), make(server)) as both:
            for _ in range(3):
                await published(server, *both)
            await asyncio.to_thread(server.call, "PUBLISH", "edge:other:tickets", "")
            await asyncio.sleep(0.3)  # and the connection is tried meanwhile
            assert [one.times for one in both] == [4, 4], "once when it began to listen"

    run(go)


def test_in_a_cluster(make, tmp_path):
    """Whichever node is told."""

    async def go():
        with redis_server.cluster(tmp_path) as nodes:
            async with listening(make(nodes[0], mode="cluster"), make(nodes[2], mode="cluster")) as both:
                for node in nodes:
                    await published(node, *both)

    run(go)


def role(server):
    return server.call("ROLE")[0]


def test_a_failover(make, tmp_path):
    """The new master is listened to."""

    async def go():
        with RedisServer(tmp_path) as master, RedisServer(tmp_path) as replica:
            redis_server.replicate(replica, master)
            with redis_server.sentinel(tmp_path, master, "edge") as sentinel:
                async with listening(make(sentinel, mode="sentinel")) as [one]:
                    await published(master, one)
                    await asyncio.to_thread(wait_until, lambda: fails_over(sentinel), SECONDS, "a failover")
                    await asyncio.to_thread(wait_until, lambda: role(replica) == b"master", SECONDS, "another master")
                    master.kill()
                    await heard_of(replica, one)

    run(go)


@pytest.mark.parametrize("how", ["dies", "hangs", "hangs up"])
def test_it_listens_again(make, tmp_path, monkeypatch, how):
    if how == "hangs":
        monkeypatch.setattr(channels, "ANSWER_SECONDS", 0.3)

    async def go():
        with RedisServer(tmp_path) as own:
            async with listening(make(own)) as [one]:
                before = one.times
                if how == "dies":
                    own.kill()
                    own.start()
                elif how == "hangs":
                    own.pause()
                    await asyncio.sleep(1)
                    own.resume()
                else:
                    own.call("CLIENT", "KILL", "TYPE", "pubsub")
                await one.until(lambda one: one.times > before)
                await published(own, one)

    run(go)


def test_a_user_without_the_right(make, server, tmp_path):
    """It is tried again: he may be given it."""

    async def go():
        (tmp_path / "password").write_text("let me in")
        server.call("ACL", "SETUSER", "edge", "reset", "resetchannels", "on", ">let me in", f"~{KEY}", "+subscribe")
        one = Listener(make(server, username="edge", password_file="password"))
        await one.until(lambda one: one.news.refused)
        assert "ermission" in one.news.refused
        assert not one.times
        server.call("ACL", "SETUSER", "edge", f"&{KEY}")
        await one.until(lambda one: one.times and not one.news.refused)
        await published(server, one)
        server.call("ACL", "SETUSER", "edge", "-subscribe")
        await one.until(lambda one: one.news.refused)
        await one.news.close()

    run(go)


def test_it_leaves_nothing(make, server):
    async def go():
        before = asyncio.all_tasks()
        async with listening(make(server), make(server)):
            pass
        assert asyncio.all_tasks() == before

    run(go)
