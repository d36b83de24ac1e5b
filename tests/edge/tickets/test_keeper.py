"""The process that keeps a fleet's ticket keys, against real Redis servers: hosts that change the keys at once, what a
user of Redis's ACL must be allowed, what else may stand there; and what it says to the master."""

import asyncio
import contextlib
import json
import os
import re
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from edge.fleet import link as links
from edge.fleet.news import News
from edge.fleet.settings import Fleet
from edge.fleet.wrapping import wrap
from edge.processes import channel
from edge.processes.channel import Channel
from edge.schema import Place, read_table
from edge.tickets import keeper as keepers
from edge.tickets.keeper import FleetError, Keeper, Keeping
from tests import redis_server
from tests.e2e.processes import ROOT, wait_until
from tests.redis_server import RedisServer

ROTATE = 3_600_000
KEY = "edge:edge:tickets"
SECONDS = 30


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def make(tmp_path, redis):
    """The work of a host of the fleet."""
    redis.call("FLUSHALL")
    (tmp_path / "one").write_bytes(b"1" * 48)
    (tmp_path / "other").write_bytes(b"2" * 48)

    def made(*servers, secrets=("one",), known=None, **values):
        urls = [server.url for server in servers or (redis,)]
        at = Place(str(tmp_path / "edge.toml")).key("fleet")
        table = read_table(Fleet, {"secret_files": list(secrets), "redis": urls, **values}, at)
        owner = os.geteuid(), os.getegid()
        return Keeping(links.read(table, at), ROTATE, 3, table.poll, table.settle, owner, lambda: known)

    return made


def do(*steps):
    """Each a coroutine function; what they return."""

    async def go():
        return [await step() for step in steps]

    return asyncio.run(go())


def polled(keeping):
    """A Keeper that has asked once."""
    keeper = Keeper(keeping)
    do(keeper.poll, keeper.close)
    return keeper


def test_the_first_host_makes_keys_and_others_have_them(make, redis):
    one, other = polled(make()), polled(make())
    assert one.agreement.known == other.agreement.known
    assert one.agreement.known.version == 1
    kept = redis.call("GET", KEY)
    for key in one.agreement.known.keys:
        assert key.key not in kept and key.key.hex().encode() not in kept


def test_many_hosts_begin_at_once(make):
    hosts = [Keeper(make()) for _ in range(20)]

    async def go():
        await asyncio.gather(*(host.poll() for host in hosts))
        await asyncio.gather(*(host.close() for host in hosts))

    asyncio.run(go())
    assert len({host.agreement.known for host in hosts}) == 1


def test_many_hosts_rotate_at_once(make):
    hosts = [Keeper(make()) for _ in range(6)]

    async def go():
        await asyncio.gather(*(host.poll() for host in hosts))
        rotated = await asyncio.gather(*(host.rotate(revoke=False) for host in hosts))
        await asyncio.gather(*(host.poll() for host in hosts))
        await asyncio.gather(*(host.close() for host in hosts))
        return rotated

    assert len({key.name for key in asyncio.run(go())}) == 1, "one rotation"
    assert len({host.agreement.known for host in hosts}) == 1


def test_what_is_lost_is_published_again(make, redis):
    host = polled(make())
    known = host.agreement.known
    redis.call("FLUSHALL")
    assert polled(make(known=known)).agreement.known == known
    assert polled(make()).agreement.known == known


def test_redis_tells_the_time(make):
    host = Keeper(make(), clock=lambda: time.time() - 100)
    do(host.poll, host.close)
    assert abs(host.offset - 100_000) < 1000
    assert abs(host.agreement.known.keys[0].made - time.time() * 1000) < 10_000
    assert abs(polled(make()).offset) < 1000


@pytest.mark.parametrize("what", [b"x", b"EDG1" + bytes(100), b"y" * 200_000])
def test_something_else_stands_there(make, redis, what):
    """It is left alone: it may be another program's."""
    redis.call("SET", KEY, what)
    with pytest.raises(FleetError, match=r"secret_files|edge has written"):
        polled(make())
    assert redis.call("GET", KEY) == what


THREE_THINGS = b"*3\r\n$-1\r\n$1\r\nx\r\n$1\r\ny\r\n"
NO_REDIS = [b"$1\r\nx\r\n", THREE_THINGS, b"*0\r\n", b":7\r\n", b"+\r\n", b"HTTP/1.1 400\r\n\r\n"]


@pytest.mark.parametrize("said", NO_REDIS)
def test_who_answers_is_no_redis(make, said):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(SECONDS)
                with contextlib.suppress(OSError):
                    while data := connection.recv(65536):
                        connection.sendall(said if b"EVAL" in data else b"+OK\r\n" * data.count(b"\r\n*") + b"+OK\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        server = SimpleNamespace(url=f"redis://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(FleetError):
            polled(make(server))
        thread.join(SECONDS)


def test_what_is_wrong_ends_without_a_stop(make):
    """It is told in the midst of lines."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = SimpleNamespace(url=f"redis://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(FleetError, match=r"Connect call failed .*[^.]$"):
        polled(make(server))


def test_it_is_no_string(make, redis):
    redis.call("RPUSH", KEY, "x")
    with pytest.raises(FleetError, match="WRONGTYPE"):
        polled(make())


@pytest.mark.parametrize("content", [b"no JSON", b"{}", b"\xff", b"[1]"])
def test_a_document_that_is_none(make, redis, content):
    keeping = make()
    redis.call("SET", KEY, wrap(keeping.link.secrets[0], KEY, content))
    with pytest.raises(FleetError):
        polled(keeping)


def test_secrets_are_replaced(make):
    assert polled(make(secrets=["one"])).under == 0
    assert polled(make(secrets=["one", "other"])).under == 0
    with pytest.raises(FleetError, match="secret_files"):
        polled(make(secrets=["other"]))
    assert polled(make(secrets=["other", "one"])).under == 0, "brought under the new one at once"
    assert polled(make(secrets=["other"])).under == 0
    late = Keeper(make(secrets=["one", "other"]))
    do(late.poll)
    early = polled(make(secrets=["other", "one"]))
    do(late.close)
    assert early.under == 0


def test_hosts_with_another_order_of_secrets_do_not_undo_each_others_writing(make, redis):
    one, other = Keeper(make(secrets=["one", "other"])), Keeper(make(secrets=["other", "one"]))

    async def go():
        seen = []
        for _ in range(5):
            for host in (one, other):
                await host.poll()
                seen.append(redis.call("GET", KEY))
        await one.close()
        await other.close()
        return seen

    assert len(set(asyncio.run(go()))) <= 3


RIGHTS = [f"~{KEY}", "+get", "+set", "+time", "+eval"]
IN_A_CLUSTER = ["+cluster|slots", "+cluster|shards", "+command"]


def permit(server, *rights):
    server.call("ACL", "SETUSER", "edge", "reset", "on", ">let me in", *rights)


@pytest.fixture
def password(tmp_path):
    (tmp_path / "password").write_text("let me in")
    return {"username": "edge", "password_file": "password"}


def test_a_user_needs_no_more_rights(make, redis, password):
    permit(redis, *RIGHTS)
    host = Keeper(make(**password))
    do(host.poll, lambda: host.rotate(revoke=False), host.close)
    for lacking in RIGHTS[1:]:
        redis.call("FLUSHALL")
        permit(redis, *(right for right in RIGHTS if right != lacking))
        with pytest.raises(FleetError, match=r"permission|can.t run this command"):
            polled(make(**password))


def test_who_may_not_publish_writes_nevertheless(make, redis, password):
    permit(redis, *RIGHTS)
    host = Keeper(make(**password))
    do(host.poll, lambda: host.rotate(revoke=True), host.close)
    assert re.search(r"(?i)permission|can.t run this command", host.mute)
    for rights in (["+publish"], ["+publish", "&edge:other:*"]):
        permit(redis, *RIGHTS, "resetchannels", *rights)
        do(host.poll, lambda: host.rotate(revoke=True), host.close)
        assert re.search(r"(?i)permission|can.t .*channel", host.mute)
    permit(redis, *RIGHTS, "resetchannels", "+publish", f"&{KEY}")
    do(host.poll, lambda: host.rotate(revoke=True), host.close)
    assert host.mute == ""


def test_the_user_that_is_documented(make, redis, tmp_path):
    page = (ROOT / "docs/fleet.md").read_text()
    commands = re.findall(r"^(ACL SETUSER .*?)(?: {2,}#.*)?$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        redis.call(*command.replace("NAME", "edge").replace("PASSWORD", "secret").split())
    (tmp_path / "password").write_text("secret")
    keeping = make(username="edge", password_file="password")
    host = Keeper(keeping)
    do(host.poll, lambda: host.rotate(revoke=True), host.close)
    assert host.mute == ""

    async def go():
        heard = asyncio.Event()
        news = News(keeping.link, KEY, heard.set)
        await asyncio.wait_for(heard.wait(), SECONDS)
        assert news.refused == ""
        await news.close()

    asyncio.run(go())


def test_nor_in_a_cluster_or_behind_sentinels(make, tmp_path, password):
    with redis_server.cluster(tmp_path) as nodes:
        for node in nodes:
            permit(node, *RIGHTS, *IN_A_CLUSTER)
        polled(make(*nodes, mode="cluster", **password))
    with RedisServer(tmp_path) as master:
        permit(master, *RIGHTS)
        with redis_server.sentinel(tmp_path, master, "edge") as sentinel:
            polled(make(sentinel, mode="sentinel", **password))


def test_an_old_master_that_is_a_replica_now(make, tmp_path):
    """It answers questions and takes nothing: that is a failure, not a success."""
    with RedisServer(tmp_path) as master, RedisServer(tmp_path) as replica:
        redis_server.replicate(replica, master)
        with pytest.raises(FleetError, match=r"(?i)read.?only"):
            polled(make(replica))


def test_too_few_replicas(make, tmp_path):
    config = {"min-replicas-to-write": "1"}
    with RedisServer(tmp_path, config=config) as server, pytest.raises(FleetError, match="NOREPLICAS"):
        polled(make(server))


# The process.


@contextlib.contextmanager
def process(keeping):
    """The master's end of the line to a process that keeps."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            ours.close()
            keeping.run(theirs)
            os._exit(0)
        os._exit(1)
    theirs.close()
    line = Channel(ours, channel.WORKER_SAYS_MOST)
    try:
        yield line
        line.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "it ends with the master"
        pid = 0
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def listen(line):
    """What it says next, for as long as somebody wants to hear."""
    while not line.ended:
        line.wait()
        for letter, body in line.receive():
            yield letter, json.loads(body)


def test_what_it_says(make, redis):
    with process(make(poll="100ms", settle="300ms")) as line:
        said = listen(line)
        letter, first = next(said)
        assert letter == keepers.HEARD and first["document"]["version"] == 1 and first["secret"] == 0
        letter, second = next(said)
        assert letter == keepers.HEARD and second["document"] is None, "nothing new"
        line.send(keepers.ROTATE, json.dumps({"id": 7, "revoke": False}).encode())
        rotated = next(body for letter, body in said if letter == keepers.ROTATED)
        assert rotated["id"] == 7 and rotated["key"] == first["document"]["keys"][1][0]
        assert next(body for _, body in said if body.get("document"))["document"]["version"] == 2


def test_what_another_host_changes_is_heard_at_once(make, redis):
    with process(make(poll="10s", settle="30s")) as one, process(make(poll="10s", settle="30s")) as other:
        hears, says = listen(one), listen(other)
        known = next(hears)[1]["document"]
        assert next(says)[1]["document"] == known
        wait_until(lambda: redis.call("PUBSUB", "NUMSUB", KEY)[1] == 2, SECONDS, "both listen")
        begun = time.monotonic()
        other.send(keepers.ROTATE, json.dumps({"id": 1, "revoke": True}).encode())
        changed = next(body["document"] for letter, body in hears if body.get("document"))
        assert changed["epoch"] == 1
        assert time.monotonic() - begun < 8, "and not when it would have looked anyway"


def test_who_may_not_listen_looks_and_says_why(make, redis, password):
    permit(redis, *RIGHTS, "resetchannels")
    with process(make(poll="100ms", settle="300ms", **password)) as line:
        said = listen(line)
        letter, body = next(one for one in said if "ermission" in one[1].get("deaf", ""))
        assert letter == keepers.HEARD
        letter, body = next(said)
        assert letter == keepers.HEARD and body["deaf"]


def test_redis_is_away(make, tmp_path):
    with RedisServer(tmp_path) as server, process(make(server, poll="100ms", settle="300ms")) as line:
        said = listen(line)
        assert next(said)[0] == keepers.HEARD
        server.kill()
        letter, body = next(one for one in said if one[0] != keepers.HEARD)
        assert letter == keepers.UNHEARD and "onnect" in body["error"]
        line.send(keepers.ROTATE, json.dumps({"id": 1, "revoke": True}).encode())
        assert next(body for letter, body in said if letter == keepers.ROTATED)["error"]
        server.start()
        assert next(body for letter, body in said if letter == keepers.HEARD)["document"] is None
        assert server.call("EXISTS", KEY) == 1


def test_redis_hangs(make, tmp_path):
    with RedisServer(tmp_path) as server, process(make(server, poll="100ms", settle="300ms")) as line:
        said = listen(line)
        next(said)
        server.pause()
        begun = time.monotonic()
        assert next(body for letter, body in said if letter == keepers.UNHEARD)["error"]
        assert time.monotonic() - begun < keepers.ATTEMPT_SECONDS + 5
        server.resume()
        assert next(said)
