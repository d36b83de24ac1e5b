"""The admin socket of a real server: who may connect, what clients of every kind do to it (nothing), and what is shown
of what goes on: requests, WebSockets, handshakes, reloads."""

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.e2e.client import Client
from tests.e2e.processes import ROOT, open_files, run, wait_until
from tests.e2e.server import Edge
from tests.e2e.sockets import Sockets
from tests.h2_peer import H2Peer

SECONDS = 30


@pytest.fixture(scope="module")
def sockets():
    with Sockets() as server:
        yield server


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, nginx, gunicorn, sockets):
    upstreams = {
        "nginx": [nginx.server, "127.0.0.1:1"],
        "app": [gunicorn.server],
        "sockets": [sockets.server],
    }
    routes = [
        {"match": {}, "upstream": "nginx", "name": "everything"},
        {"match": {"path": "/app/*"}, "upstream": "app"},
        {"match": {"path": "/ws/*"}, "upstream": "sockets"},
        {"match": {"path": "/echo"}, "upstream": "sockets"},
    ]
    directory = tmp_path_factory.mktemp("admin")
    patient = {"timeouts": {"handshake": "1m"}}
    own = {"workers": 2, "admin": directory / "a.sock"}
    with Edge(directory, pki, upstreams, routes=routes, listener=patient, server=own) as edge:
        edge.admin = directory / "a.sock"
        yield edge


class Asker:
    """A connection to the admin socket."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.settimeout(SECONDS)
        self.lines = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.sock.close()

    def send(self, **what):
        self.sock.sendall(json.dumps(what).encode() + b"\n")

    def read(self):
        return json.loads(self.lines.readline())

    def ask(self, command, **what):
        """-> all lines of the answer."""
        self.send(command=command, **what)
        found = [self.read()]
        while "ok" not in found[-1]:
            found.append(self.read())
        return found


def command(edge, *arguments):
    return run([sys.executable, "-m", "edge", *arguments, "--admin", edge.admin], seconds=SECONDS, cwd=ROOT)


def shown(edge, what, *arguments):
    """What `edge show ... --json` tells."""
    done = command(edge, "show", what, "--json", *arguments)
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


# Who may, and what they may do to it.


def test_permissions(edge):
    found = os.stat(edge.admin)
    assert stat.S_ISSOCK(found.st_mode)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_another_user_may_not(edge):
    code = f"import os, socket; os.setuid(65534); print(socket.socket(socket.AF_UNIX).connect_ex({str(edge.admin)!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "13\n"


def test_workers_and_other_processes_do_not_have_it(edge):
    known = Path("/proc/net/unix").read_text().splitlines()
    inode = next(line.split()[6] for line in known if line.endswith(str(edge.admin)))
    holders = {pid for pid in [edge.pid, *edge.workers()] if f"socket:[{inode}]" in links(pid)}
    assert holders == {edge.pid}


def links(pid):
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def test_a_second_edge_does_not_take_it(edge, tmp_path, pki, nginx):
    second = Edge(tmp_path / "second", pki, {"nginx": [nginx.server]}, server={"admin": edge.admin})
    second.write()
    done = run([sys.executable, "-m", "edge", "run", "--config", second.config], seconds=SECONDS, cwd=ROOT)
    assert done.returncode == 1
    assert f"unix:{edge.admin}: the path cannot be bound: somebody listens there" in done.stdout
    assert command(edge, "status", "--json").returncode == 0


def test_garbage(edge):
    """A thousand lines of it, each of which is answered, while others are served."""
    with Asker(edge.admin) as one, Asker(edge.admin) as other:
        sender = threading.Thread(target=lambda: one.sock.sendall(b"\x00\xff garbage [{\n" * 1000))
        sender.start()
        assert other.ask("status")[-1]["ok"]
        for _ in range(1000):
            assert one.read()["error"].startswith("a line is no JSON")
        sender.join(SECONDS)
        assert one.ask("status")[-1]["ok"]


def test_a_line_without_end(edge):
    with Asker(edge.admin) as asker:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(100):
                asker.sock.sendall(b"x" * 65536)
        with contextlib.suppress(ConnectionResetError):
            assert asker.read() == {"ok": False, "error": "a line is longer than 65536 bytes"}
            assert asker.lines.read() == b""


def test_a_slow_client_and_one_that_never_reads(edge):
    with Asker(edge.admin) as slow, Asker(edge.admin) as deaf:
        deaf.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                deaf.send(command="show", what="config")
        for byte in b'{"command": "status"}\n':
            slow.sock.send(bytes([byte]))
            begin = time.monotonic()
            with Asker(edge.admin) as quick:
                assert quick.ask("status")[-1]["ok"]
            assert time.monotonic() - begin < 10
        assert slow.read()["ok"]


def test_many_clients_leave_nothing_behind(edge):
    def count():
        return open_files(edge.pid)

    before = count()
    askers = [Asker(edge.admin) for _ in range(100)]
    for asker in askers[::2]:
        with contextlib.suppress(OSError):
            asker.sock.sendall(b'{"command": "show", "what": "connections"}\n')
    with Asker(edge.admin) as late:
        assert late.ask("status")[-1]["ok"]
    for asker in askers:
        asker.__exit__()
    wait_until(lambda: count() <= before, SECONDS, "descriptors are given back")
    assert Client(edge).get("/1k").status == 200


# What is shown.


def test_every_kind_is_shown(edge):
    assert Client(edge).get("/1k").status == 200
    for what in ("config", "listeners", "routes", "upstreams", "certs", "tickets", "handoffs", "hooks", "connections"):
        done = command(edge, "show", what)
        assert done.returncode == 0, done.stdout
        assert done.stdout.strip()
    (listener,) = shown(edge, "listeners")
    assert listener["bind"] == f"127.0.0.1:{edge.port}"
    (certificate,) = shown(edge, "certs")
    assert certificate["key"].startswith("file ")
    assert [key["state"] for key in shown(edge, "tickets")][:2] == ["seals", "next"]
    assert shown(edge, "handoffs") == shown(edge, "hooks") == []


def test_the_configuration_is_one(edge, tmp_path):
    """What is shown is a file that would serve, with the same settings."""
    text = command(edge, "show", "config").stdout
    (tmp_path / "edge.toml").write_text(text)
    done = run([sys.executable, "-m", "edge", "check", "--config", tmp_path / "edge.toml"], seconds=SECONDS, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "PRIVATE KEY" not in text


def test_a_configuration_with_long_lines_is_one(edge, tmp_path):
    """They are not wrapped, as tables are: a string would be broken, and be another."""
    directory = tmp_path / ("a long name " * 15) / ("and another " * 15)
    directory.mkdir(parents=True)
    edge.tables["server"]["cache_dir"] = directory
    edge.write()
    try:
        assert command(edge, "reload", "--wait").returncode == 0
        found = tomllib.loads(command(edge, "show", "config").stdout)
        assert found["server"]["cache_dir"] == str(directory)
    finally:
        del edge.tables["server"]["cache_dir"]
        edge.write()
        assert command(edge, "reload", "--wait").returncode == 0


def test_routes_and_upstreams_count(edge):
    before = next(route for route in shown(edge, "routes") if route["label"] == "everything")["figures"]
    for _ in range(4):
        assert Client(edge).get("/1k").status == 200

    def counted():
        now = next(route for route in shown(edge, "routes") if route["label"] == "everything")["figures"]
        return now and now["requests"] - (before["requests"] if before else 0) == 4

    wait_until(counted, SECONDS, "requests are counted")
    upstream = next(item for item in shown(edge, "upstreams") if item["name"] == "nginx")
    assert upstream["addresses"]["127.0.0.1:1"]["failures"] > 0
    assert {pool["slot"] for pool in upstream["pools"]} == {0, 1}
    assert {pool["server"] for pool in upstream["pools"]} == {*upstream["addresses"]}
    assert "127.0.0.1:1" in command(edge, "show", "upstreams").stdout


def test_connections_of_every_kind(edge, sockets):
    asyncio.run(connections_of_every_kind(edge))


async def connections_of_every_kind(edge):
    context = edge.tls_context()
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", edge.port)) as handshaking,
        Client(edge) as idle,
        context.wrap_socket(
            socket.create_connection(("127.0.0.1", edge.port)), server_hostname="edge.test"
        ) as raw,
    ):
        handshaking.send(b"\x16\x03\x01\x02")
        assert idle.get("/1k").status == 200
        h2 = H2Peer(raw.sendall, lambda: raw.recv(65536))
        stream = h2.post(b"part", "/app/echo?secret=x", end=False)
        assert stream == 1
        async with connect(
            f"wss://edge.test:{edge.port}/echo?token=hidden",
            ssl=edge.tls_context(),
            host="127.0.0.1",
            proxy=None,
            ping_interval=None,
        ) as websocket:
            await websocket.send("hello")
            await websocket.recv()
            found = await asyncio.to_thread(all_there, edge)
            text = json.dumps(found)
            assert "secret" not in text
            assert "hidden" not in text
            by_state = {item["state"]: item for item in found if item["running"] or item["state"] != "active"}
            tunnel, active = by_state["hijacked"], by_state["active"]
            assert tunnel["running"][0]["tunnel"] == "websocket"
            assert tunnel["running"][0]["path"] == "/echo"
            assert (active["protocol"], active["streams"]) == ("h2", 1)
            assert active["running"][0]["method"] == "POST"
            assert active["running"][0]["path"] == "/app/echo"
            assert by_state["handshake"]["port"] == handshaking.getsockname()[1]
            assert by_state["idle"]["server_name"] == "edge.test"
            # as people see it, and in part
            table = await asyncio.to_thread(lambda: command(edge, "show", "connections").stdout)
            assert "GET edge.test" in table
            assert "(websocket)" in table
            of_one = await asyncio.to_thread(shown, edge, "connections", "--state", "hijacked")
            assert [item["state"] for item in of_one] == ["hijacked"]
            none = await asyncio.to_thread(shown, edge, "connections", "--client", "10.0.0.0/8")
            assert none == []
            named = await asyncio.to_thread(shown, edge, "connections", "--sni", "*.test")
            assert {item["server_name"] for item in named} == {"edge.test"}


def all_there(edge):
    def found():
        items = shown(edge, "connections")
        states = {item["state"] for item in items}
        there = {"handshake", "idle", "hijacked", "active"} <= states
        return items if there and any(item.get("streams") and item["running"] for item in items) else None

    return wait_until(found, SECONDS, "connections in four states")


def test_a_limit_and_what_is_wrong(edge):
    clients = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(150)]
    for client in clients:
        client.send(b"\x16\x03")
    try:
        wait_until(lambda: len(shown(edge, "connections", "--limit", "1000")) >= 150, SECONDS, "all are there")
        assert len(shown(edge, "connections", "--limit", "10")) == 10
        assert len(shown(edge, "connections", "--limit", "101")) == 101
        assert "and there are more (--limit)" in command(edge, "show", "connections").stdout
    finally:
        for client in clients:
            client.close()
    done = command(edge, "show", "connections", "--client", "nonsense")
    assert done.returncode == 2
    assert '"nonsense" is no address' in done.stdout
    with Asker(edge.admin) as asker:
        for arguments, fault in (
            ({"what": "x"}, "there is nothing to show of 'x'; there are: certs, config"),
            ({"what": "connections", "limit": 0}, "limit is a number"),
            ({"what": "connections", "limit": True}, "limit is a number"),
            ({"what": "connections", "state": 7}, "are strings"),
            ({"what": "connections", "state": "asleep"}, 'no state "asleep"'),
        ):
            (answer,) = asker.ask("show", **arguments)
            assert fault in answer["error"]


def test_a_worker_that_hangs_is_told_of(edge):
    """The others answer; the master waits for nobody."""
    stopped, _ = sorted(worker["pid"] for worker in status(edge)["state"]["workers"])
    with Asker(edge.admin) as asker:
        os.kill(stopped, 19)
        try:
            lines = asker.ask("show", what="connections")
            assert {line["pid"]: line["error"] for line in lines if "error" in line} == {stopped: "no answer in 5 s"}
            assert lines[-1]["ok"]
        finally:
            os.kill(stopped, 18)
        assert not any("error" in line for line in asker.ask("show", what="connections"))


def status(edge):
    with Asker(edge.admin) as asker:
        return asker.ask("status")[-1]


# What the documentation says.

PAGE = (ROOT / "docs/admin.md").read_text()


def examples():
    """(the line to send, the lines that come back)"""
    for block in re.findall(r"^```\n> (.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        line, *answer = block.splitlines()
        yield line, answer


def pattern(line):
    """Where `...` stands for anything."""
    return ".*".join(map(re.escape, line.split("...")))


def test_the_examples_of_the_documentation(edge):
    assert len(list(examples())) >= 7
    with Asker(edge.admin) as asker:
        for line, answer in examples():
            asker.sock.sendall(line.encode() + b"\n")
            came = [asker.read()]
            while "ok" not in came[-1]:
                came.append(asker.read())
            # of a list of things the first and the last
            shown_lines = [json.dumps(one) for one in ([*came[: len(answer) - 1], came[-1]])]
            for expected, told in zip(answer, shown_lines, strict=True):
                assert re.fullmatch(pattern(expected), told), f"{line}: {told}, not {expected}"


def documented(heading):
    """The names in the first column of the table below a heading, and those in the second."""
    section = PAGE.partition(f"### {heading}\n")[2].split("\n#")[0]
    found = set()
    for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        found |= set(re.findall(r"`(\w+)`", row))
    return found, set(re.findall(r"`(\w+)`", section))


def test_every_key_is_documented(edge):
    told = status(edge)
    keys, all_names = documented("The state")
    assert set(told["state"]) == keys
    below = ("reloads", "drains", "tickets")
    names = set().union(*(told["state"][key] for key in below), told["state"]["reloads"]["last"] or ())
    for key in ("workers", "listeners", "certificates", "companions"):
        names |= set().union(*told["state"][key])
    assert names <= all_names
    keys, _ = documented("The figures")
    assert set(told["figures"]) == keys
    with Client(edge) as client, socket.create_connection(("127.0.0.1", edge.port)) as handshaking:
        handshaking.send(b"\x16")
        assert client.get("/1k").status == 200
        keys, _ = documented("Connections")
        found = wait_until(lambda: shown(edge, "connections"), SECONDS, "a connection")
        assert set().union(*found) <= keys


def test_every_command_is_documented(edge):
    with Asker(edge.admin) as asker:
        (answer,) = asker.ask("?")
    for name in answer["error"].partition("there are: ")[2].split(", "):
        assert f"| `{name}` |" in PAGE, name
    with Asker(edge.admin) as asker:
        (answer,) = asker.ask("show", what="?")
    for what in answer["error"].partition("there are: ")[2].split(", "):
        assert f"`{what}`" in PAGE, what


# Reloads.


def test_reloads_are_answered_and_followed(tmp_path, pki, nginx):
    """Accepted, rejected with the reason, and another path for the socket itself."""
    first, second = tmp_path / "one.sock", tmp_path / "two.sock"
    with Edge(tmp_path / "edge", pki, {"nginx": [nginx.server]}, server={"admin": first}) as edge:
        edge.admin = first
        done = command(edge, "reload", "--wait")
        assert (done.returncode, done.stdout.split(" in ")[0]) == (0, "accepted")

        good = edge.config.read_text()
        edge.config.write_text(good.replace("workers", "wrokers"))
        done = command(edge, "reload", "--wait")
        assert done.returncode == 1
        assert "rejected, nothing has changed" in done.stdout
        assert 'did you mean "workers"?' in done.stdout
        told = status(edge)["state"]["reloads"]
        assert (told["accepted"], told["rejected"], told["last"]["accepted"]) == (1, 1, False)
        assert "wrokers" in told["last"]["reason"]

        # A path that cannot be: nothing has changed either.
        edge.tables["server"]["admin"] = {"path": nginx_like_file(tmp_path), "mode": "0640"}
        edge.write()
        done = command(edge, "reload", "--wait")
        assert done.returncode == 1
        assert "the path cannot be bound: is there already, and no socket" in done.stdout
        assert status(edge)["ok"]

        edge.tables["server"]["admin"] = {"path": first, "mode": "0640"}
        edge.write()
        assert command(edge, "reload", "--wait").returncode == 0
        assert stat.S_IMODE(first.stat().st_mode) == 0o640

        # Who has asked is answered, though the socket has gone to another place.
        edge.tables["server"]["admin"] = second
        edge.write()
        assert command(edge, "reload", "--wait").returncode == 0
        assert not first.exists()
        assert stat.S_IMODE(second.stat().st_mode) == 0o600
        edge.admin = second
        assert status(edge)["ok"]

        del edge.tables["server"]["admin"]
        edge.write()
        assert command(edge, "reload", "--wait").returncode == 0
        assert not second.exists()
    assert not list(tmp_path.glob("*.sock"))


def nginx_like_file(directory):
    path = directory / "file"
    path.write_text("precious")
    return path


def test_a_stale_socket_is_replaced_after_a_crash(tmp_path, pki, nginx):
    path = tmp_path / "a.sock"
    edge = Edge(tmp_path / "edge", pki, {"nginx": [nginx.server]}, server={"admin": path})
    edge.start()
    edge.process.kill()
    assert path.exists()
    edge.error_log.unlink()
    with edge:
        edge.admin = path
        assert status(edge)["ok"]
