"""Three edges that share ticket keys through a real Redis: what one has sealed the others open, whatever happens to
the keys, to Redis, and to the edges. "Hosts" are addresses of loopback."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine

from tests import redis_server
from tests.e2e.processes import ROOT, answers, run, wait_until
from tests.e2e.server import Edge
from tests.redis_server import RedisServer

SECONDS = 30
QUICK = {"poll": "100ms", "settle": "400ms"}


class Host:
    """An edge of the fleet, and what clients see of it."""

    def __init__(self, number: int, directory, pki, nginx, *, fleet: dict, tickets: dict | None = None) -> None:
        self.address = f"127.0.0.{number}"
        self.edge = Edge(
            directory / f"host{number}",
            pki,
            {"nginx": [nginx.server]},
            server={"workers": 2, "admin": f"unix:{directory}/admin{number}.sock"},
            tls={"tickets": tickets} if tickets else {},
        )
        self.edge.tables["listener"][0]["bind"] = [f"{self.address}:{self.edge.port}"]
        self.edge.tables["fleet"] = fleet

    def connect(self, session=None):
        """A handshake -> whether it resumed the session, and the session to go on with."""
        engine = Engine(ClientConfig(server_name="edge.test", alpn=[b"http/1.1"]), session)
        with socket.create_connection((self.address, self.edge.port), timeout=SECONDS) as sock:
            sock.settimeout(SECONDS)
            sock.sendall(engine.take_output())
            while not engine.established or engine.session is session:
                data = sock.recv(65536)
                assert data, "the server has ended the connection"
                engine.receive_bytes(data)
                if out := engine.take_output():
                    sock.sendall(out)
        return engine.resumed, engine.session

    def ask(self, command: str, **arguments) -> dict:
        return self.edge.ask(command, **arguments)

    def state(self) -> dict:
        return self.ask("status")["state"]

    def command(self, *words: str):
        path = self.edge.tables["server"]["admin"]
        return run([sys.executable, "-m", "edge", *words, "--admin", path], cwd=ROOT, seconds=SECONDS)

    def sealing(self) -> str:
        return next(key["id"] for key in self.state()["tickets"]["keys"] if key["state"] == "seals")

    def shares(self) -> bool:
        fleet = self.state()["fleet"]["tickets"]
        return bool(fleet and fleet["connected"])

    def wait(self, condition, what: str):
        return wait_until(condition, SECONDS, f"{self.address}: {what}\n{self.edge.everything_said()[-3000:]}")


class Fleet:
    def __init__(self, directory, pki, nginx, redis: list[RedisServer], number: int = 3, **values) -> None:
        self.secret = directory / "fleet.secret"
        self.secret.write_bytes(bytes(range(48)))
        table = {
            "secret_files": [self.secret],
            "redis": [server.url for server in redis],
            "share": ["tickets"],
            **QUICK,
            **values,
        }
        self.hosts = [Host(i + 1, directory, pki, nginx, fleet=dict(table)) for i in range(number)]

    def __enter__(self) -> "Fleet":
        self.stack = contextlib.ExitStack()
        for host in self.hosts:
            self.stack.enter_context(host.edge)
        return self

    def __exit__(self, *error) -> None:
        self.stack.__exit__(*error)

    def wait_shared(self) -> None:
        """Until all seal with the same key."""
        for host in self.hosts:
            host.wait(host.shares, "shares")
        wait_until(lambda: len({host.sealing() for host in self.hosts}) == 1, SECONDS, "all seal with one key")

    def wait_everywhere(self, condition, what: str) -> None:
        for host in self.hosts:
            host.wait(lambda host=host: condition(host), what)

    def check_resumption(self) -> None:
        """A session of each host is resumed on each other, by both workers."""
        for one in self.hosts:
            _, session = one.connect()
            for other in self.hosts:
                resumed, session = other.connect(session)
                assert resumed, f"{other.address} does not open what {one.address} has sealed"


class Clients:
    """They come again and again, each time to the next host, while something else happens."""

    def __init__(self, hosts: list[Host], number: int = 3) -> None:
        self._hosts = hosts
        self._over = threading.Event()
        self.resumed = 0
        self.full: list[str] = []
        self._threads = [threading.Thread(target=self._come, args=(i,)) for i in range(number)]

    def _come(self, first: int) -> None:
        _, session = self._hosts[first % len(self._hosts)].connect()
        at = first
        while not self._over.is_set():
            at += 1
            host = self._hosts[at % len(self._hosts)]
            resumed, session = host.connect(session)
            if resumed:
                self.resumed += 1
            else:
                self.full.append(host.address)

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(SECONDS)
        if kind is None:
            assert self.resumed
            assert self.full == []


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki, nginx, redis):
    with Fleet(tmp_path_factory.mktemp("fleet"), pki, nginx, [redis]) as fleet:
        yield fleet


@pytest.fixture
def fleet(running):
    """Three hosts, for most of these tests."""
    running.wait_shared()
    return running


def test_a_ticket_of_one_resumes_on_each_other(fleet, redis):
    fleet.check_resumption()
    kept = redis.call("GET", "edge:edge:tickets")
    for host in fleet.hosts:
        for key in host.state()["tickets"]["keys"]:
            assert bytes.fromhex(key["id"]) not in kept, "wrapped"


def test_a_forced_rotation_reaches_all_and_no_client_notices(fleet):
    first, *_ = fleet.hosts
    before = first.sealing()
    with Clients(fleet.hosts):
        begun = time.monotonic()
        said = first.command("fleet", "rotate", "--wait")
        assert said.returncode == 0, said.stdout
        assert time.monotonic() - begun > 0.4, "not before all could know"
        key = said.stdout.split()[2]
        assert said.stdout == f"ticket key {key} seals\n" and key != before
        fleet.wait_everywhere(lambda host: host.sealing() == key, "seals with the new key")
        assert fleet.hosts[1].ask("rotate", wait=True)["ok"]
        key = fleet.hosts[1].sealing()
        fleet.wait_everywhere(lambda host: host.sealing() == key, "seals with the newest key")
    states = [key["state"] for key in first.state()["tickets"]["keys"]]
    assert states[:2] == ["seals", "next"] and states.count("opens") == 2


@pytest.mark.slow
def test_with_the_times_that_are_usual(tmp_path, pki, nginx):
    """Asked of one, a rotation is everywhere within a minute, and no client has noticed."""
    with RedisServer(tmp_path) as redis, Fleet(tmp_path, pki, nginx, [redis], poll="5s", settle="30s") as fleet:
        fleet.wait_shared()
        begun = time.monotonic()
        with Clients(fleet.hosts) as clients:
            key = fleet.hosts[0].ask("rotate")["key"]
            while {host.sealing() for host in fleet.hosts} != {key}:
                assert time.monotonic() < begun + 60
                time.sleep(0.1)
            fleet.check_resumption()
        print(f"everywhere after {time.monotonic() - begun:.1f} s; {clients.resumed} handshakes, all resumed")


def test_revoked_keys_open_nothing(fleet):
    first, _, third = fleet.hosts
    _, session = first.connect()
    assert third.connect(session)[0]
    said = first.command("fleet", "rotate", "--revoke", "--wait")
    assert said.returncode == 0, said.stdout
    key = said.stdout.split()[2]
    fleet.wait_everywhere(lambda host: host.sealing() == key, "seals with the new key")
    for host in fleet.hosts:
        assert not host.connect(session)[0]
    fleet.check_resumption()


def test_a_revocation_is_everywhere_at_once(tmp_path, pki, nginx):
    """Long before hosts would look by themselves."""
    with RedisServer(tmp_path) as redis, Fleet(tmp_path, pki, nginx, [redis], poll="10s", settle="30s") as fleet:
        fleet.wait_shared()
        subscribed = ["PUBSUB", "NUMSUB", "edge:edge:tickets"]
        wait_until(lambda: redis.call(*subscribed)[1] == len(fleet.hosts), SECONDS, "all listen")
        _, session = fleet.hosts[0].connect()
        begun = time.monotonic()
        key = fleet.hosts[0].ask("rotate", wait=True, revoke=True)["key"]
        fleet.wait_everywhere(lambda host: host.sealing() == key, "seals with the new key")
        seconds = time.monotonic() - begun
        assert seconds < 8
        for host in fleet.hosts:
            assert not host.connect(session)[0]
        fleet.check_resumption()
        print(f"revoked everywhere after {seconds:.2f} s")


def test_what_is_told(fleet):
    first, *_ = fleet.hosts
    said = first.command("fleet", "status")
    assert said.returncode == 0 and "shared with all hosts" in said.stdout, said.stdout
    assert "the fleet's" in said.stdout and "seals and opens" in said.stdout
    told = json.loads(first.command("fleet", "status", "--json").stdout)
    assert told["fleet"]["tickets"]["connected"] and told["tickets"]["source"] == "fleet"
    assert told["fleet"]["tickets"]["polls"]["answered"] > 0 and told["fleet"]["tickets"]["version"] > 1
    said = first.command("show", "config")
    assert "[fleet]" in said.stdout and 'settle = "400ms"' in said.stdout
    assert "shared with all hosts" in first.command("status").stdout


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_redis_is_away_and_comes_back(fleet, redis, how):
    """Hosts go on with what they know, also as workers are replaced; nothing of them waits for Redis."""
    marks = [host.edge.mark() for host in fleet.hosts]
    before = fleet.hosts[0].sealing()
    with Clients(fleet.hosts):
        if how == "killed":
            redis.kill()
        else:
            redis.pause()
        for host, mark in zip(fleet.hosts, marks, strict=True):
            host.edge.wait_error("is not reached: .*; the last known ticket keys go on", mark, SECONDS)
            assert host.state()["fleet"]["tickets"]["connected"] is False
        fleet.check_resumption()
        said = fleet.hosts[0].command("fleet", "rotate", "--wait")
        assert said.returncode == 1 and "the ticket keys stay as they are" in said.stdout, said.stdout
        assert "not reached for" in fleet.hosts[0].command("fleet", "status").stdout
    first = fleet.hosts[0]
    gone = first.edge.workers()[0]
    run(["kill", "-KILL", str(gone)])
    first.wait(lambda: len(set(first.edge.workers()) - {gone}) == 2, "has another worker")
    first.wait(lambda: all(w["state"] == "serving" for w in first.state()["workers"]), "serves")
    fleet.check_resumption()
    if how == "killed":
        redis.start()  # without all that it knew
    else:
        redis.resume()
    for host, mark in zip(fleet.hosts, marks, strict=True):
        host.edge.wait_error(r"is reached again, after \d+\.\d s", mark, SECONDS)
        errors = [m for level, m in host.edge.errors(mark) if "is not reached" in m]
        assert len(errors) == 1, "told once"
    fleet.wait_shared()
    assert fleet.hosts[0].sealing() == before, "what was known holds"
    fleet.check_resumption()


def test_redis_loses_its_data(fleet, redis):
    before = fleet.hosts[0].sealing()
    with Clients(fleet.hosts):
        redis.call("FLUSHALL")
        wait_until(lambda: redis.call("EXISTS", "edge:edge:tickets"), SECONDS, "published again")
        fleet.wait_everywhere(lambda host: host.sealing() == before, "keeps its key")


def test_a_host_that_never_knew_any_key(tmp_path, pki, nginx):
    redis = RedisServer(tmp_path)
    with Fleet(tmp_path, pki, nginx, [redis], 2) as fleet:
        one, other = fleet.hosts
        one.edge.wait_error("is not reached: .*; this host has ticket keys of its own until it is", 0, SECONDS)
        _, session = one.connect()
        assert one.connect(session)[0]
        assert not other.connect(session)[0]
        with redis:
            fleet.wait_shared()
            assert one.connect(session)[0], "its own go on to open"
            fleet.check_resumption()


def test_reloads_and_upgrades_keep_the_keys(tmp_path, pki, nginx):
    """Though nobody can be asked meanwhile."""
    with RedisServer(tmp_path) as redis, Fleet(tmp_path, pki, nginx, [redis], 2) as fleet:
        fleet.wait_shared()
        one, other = fleet.hosts
        _, session = other.connect()
        redis.kill()
        one.edge.wait_error("is not reached", 0, SECONDS)
        assert one.ask("reload", wait=True)["ok"]
        assert one.connect(session)[0]
        old = one.edge.pid
        assert one.ask("upgrade", wait=True)["ok"]
        one.wait(lambda: one.state()["pid"] != old, "the new master answers")
        for host in fleet.hosts:
            resumed, session = host.connect(session)
            assert resumed
        assert one.state()["fleet"]["tickets"]["connected"] is False
        assert one.edge.process.popen.wait(SECONDS) == 0
        os.kill(one.state()["pid"], signal.SIGTERM)
        one.wait(lambda: not answers(one.edge.port, one.address), "ends")


def test_the_fleet_is_added_and_removed_by_a_reload(fleet):
    one, other, _ = fleet.hosts
    table = one.edge.tables.pop("fleet")
    one.edge.write()
    assert one.ask("reload", wait=True)["ok"]
    one.wait(lambda: one.edge.titled("edge: fleet") == [], "asks nobody")
    assert one.state()["fleet"] is None
    _, session = one.connect()
    assert not other.connect(session)[0]
    one.edge.tables["fleet"] = table
    one.edge.write()
    assert one.ask("reload", wait=True)["ok"]
    fleet.wait_shared()
    assert one.connect(session)[0], "what it has sealed alone"
    fleet.check_resumption()


def test_the_process_that_asks(fleet):
    """Dies: another one. Hangs: the same, and nobody waits for it."""
    first = fleet.hosts[0]
    [pid] = first.edge.titled("edge: fleet")
    run(["kill", "-KILL", str(pid)])
    first.wait(lambda: first.edge.titled("edge: fleet") not in ([], [pid]), "another process")
    answered = first.state()["fleet"]["tickets"]["polls"]["answered"]
    first.wait(lambda: first.state()["fleet"]["tickets"]["polls"]["answered"] > answered, "asks")
    fleet.check_resumption()


def test_the_secret_is_replaced(fleet, tmp_path):
    """In three steps, each host on its own time."""
    new = tmp_path / "new.secret"
    new.write_bytes(b"n" * 48)
    before = fleet.hosts[0].sealing()
    with Clients(fleet.hosts):
        for secrets in ([fleet.secret, new], [new, fleet.secret], [new]):
            for host in fleet.hosts:
                host.edge.tables["fleet"]["secret_files"] = secrets
                host.edge.write()
                assert host.ask("reload", wait=True)["ok"]
            fleet.wait_everywhere(
                lambda host: host.shares() and host.state()["fleet"]["tickets"]["secret"] == 0, "has the first secret"
            )
    assert fleet.hosts[0].sealing() == before


def test_another_secret_is_told_and_changes_nothing(fleet, redis, tmp_path):
    kept = redis.call("GET", "edge:edge:tickets")
    wrong = tmp_path / "wrong.secret"
    wrong.write_bytes(b"w" * 48)
    first = fleet.hosts[0]
    before = first.edge.tables["fleet"]["secret_files"]
    first.edge.tables["fleet"]["secret_files"] = [wrong]
    first.edge.write()
    assert first.ask("reload", wait=True)["ok"]
    first.edge.wait_error("under a secret that is not among secret_files", 0, SECONDS)
    assert redis.call("GET", "edge:edge:tickets") == kept
    fleet.check_resumption()
    first.edge.tables["fleet"]["secret_files"] = before
    first.edge.write()
    assert first.ask("reload", wait=True)["ok"]


def test_failover(tmp_path, pki, nginx):
    """The master of a Sentinel's group dies: its replica is asked."""
    with RedisServer(tmp_path) as master, RedisServer(tmp_path) as replica:
        redis_server.replicate(replica, master)
        sentinel = redis_server.sentinel(tmp_path, master, "edge")
        with sentinel, Fleet(tmp_path, pki, nginx, [sentinel], 2, mode="sentinel") as fleet:
            fleet.wait_shared()
            key = fleet.hosts[0].sealing()
            wait_until(lambda: b"slave" in _flags(sentinel), SECONDS, "the sentinel knows the replica")
            with Clients(fleet.hosts):
                master.kill()
                wait_until(lambda: replica.call("ROLE")[0] == b"master", SECONDS, "the replica is master")
                for host in fleet.hosts:
                    asked = host.state()["fleet"]["tickets"]["polls"]["answered"]
                    host.wait(
                        lambda host=host, n=asked: host.state()["fleet"]["tickets"]["polls"]["answered"] > n + 2
                        and host.shares(),
                        "asks the replica",
                    )
            assert fleet.hosts[0].sealing() == key
            assert fleet.hosts[1].ask("rotate", wait=True)["ok"]
            fleet.check_resumption()


def _flags(sentinel: RedisServer) -> bytes:
    return b"".join(str(one).encode() for one in sentinel.call("SENTINEL", "REPLICAS", "edge"))


def test_a_cluster(tmp_path, pki, nginx):
    with (
        redis_server.cluster(tmp_path) as nodes,
        Fleet(tmp_path, pki, nginx, nodes, 2, mode="cluster") as fleet,
    ):
        fleet.wait_shared()
        fleet.check_resumption()
        assert fleet.hosts[0].ask("rotate", wait=True)["ok"]
        fleet.check_resumption()


# Without Redis.


@contextlib.contextmanager
def delivered(tmp_path, pki, nginx, number):
    """Hosts that are given files, two to begin with."""
    hosts = []
    with contextlib.ExitStack() as stack:
        for i in range(number):
            path = tmp_path / f"keys{i}"
            path.mkdir()
            for name in ("1", "2"):
                (path / name).write_bytes(name.encode() * 48)
            host = Host(i + 1, tmp_path, pki, nginx, fleet={}, tickets={"directory": path})
            del host.edge.tables["fleet"]
            hosts.append(host)
            stack.enter_context(host.edge)
        yield hosts


def test_keys_from_a_directory(tmp_path, pki, nginx):
    with delivered(tmp_path, pki, nginx, 2) as hosts:
        one, other = hosts
        before = one.sealing()
        with Clients(hosts):
            for i in range(len(hosts)):
                part = tmp_path / f"keys{i}" / ".3"
                part.write_bytes(b"3" * 48)
                part.rename(part.with_name("3"))
            for host in hosts:
                host.wait(lambda host=host: host.sealing() != before, "seals with the next key")
            assert one.sealing() == other.sealing()
            (tmp_path / "keys0" / "4").write_bytes(b"short")
            one.edge.wait_error(r"4 is shorter than 48 bytes.*the ticket keys before go on", 0, SECONDS)
        assert "4 is shorter than 48 bytes" in one.ask("reload", wait=True)["error"]
        assert one.sealing() == other.sealing()
        assert "of a directory" in one.command("show", "tickets").stdout
        assert "not a fleet's here" in one.ask("rotate")["error"]
