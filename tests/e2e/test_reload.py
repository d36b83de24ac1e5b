"""Reloads in place: everything of a configuration that is no process changes while the same workers serve, and what has
begun goes on."""

import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import ROOT, free_port, run, wait_until
from tests.e2e.reloading import WebSocket, backend_of, generation, http2, refused, renew
from tests.e2e.scripted import OK, Backend


@pytest.fixture
def origin(backend):
    return backend_of(backend)


@pytest.fixture
def edge(make_edge, origin):
    return make_edge({"b": [origin.server]}, server={"workers": 2})


@pytest.fixture
def alone(make_edge, origin):
    """One worker: what one connection sees, all see."""
    return make_edge({"b": [origin.server]})


@contextlib.contextmanager
def same_workers(edge):
    before = edge.workers()
    yield
    assert edge.workers() == before


def serial(edge, name: str) -> int:
    context = edge.tls_context()
    with Client(edge, name=name, context=context) as client:
        return int(client.sock.getpeercert()["serialNumber"], 16)


def test_certificates(edge, pki):
    with same_workers(edge):
        assert serial(edge, "edge.test") == pki.default.serial
        with pytest.raises(ssl.SSLCertVerificationError):
            serial(edge, "exact.wild.edge.test")
        edge.tables["certificate"].append(pki.exact.table())
        assert "1 certificate new" in renew(edge)
        for _ in range(8):
            assert serial(edge, "exact.wild.edge.test") == pki.exact.serial
        del edge.tables["certificate"][1]
        assert "1 certificate removed" in renew(edge)
        with pytest.raises(ssl.SSLCertVerificationError):
            serial(edge, "exact.wild.edge.test")


def test_routes_and_upstreams_for_connections_that_are_there(edge, origin):
    with same_workers(edge), Backend() as other, Client(edge) as kept, http2(edge) as h2:
        other.on("/new", other.handlers["/ok"])
        assert kept.get("/ok").status == 200
        assert h2.ask("/new", authority="edge.test").status == 404
        edge.tables["upstream"].append({"name": "c", "servers": [other.server]})
        edge.tables["route"].append({"match": {"path": "/new"}, "upstream": "c"})
        assert "1 upstream added, 1 route added" in renew(edge)
        assert kept.get("/new").body == b"ok"
        assert h2.ask("/new", authority="edge.test").body == b"ok"
        assert len(other.seen("/new")) == 2
        del edge.tables["route"][1], edge.tables["upstream"][1]
        assert "1 upstream removed, 1 route removed" in renew(edge)
        assert kept.get("/new").status == 404
        assert h2.ask("/new", authority="edge.test").status == 404
        wait_until(lambda: not other.open, 20, "the end of what was open to the upstream")


def test_pools_of_unchanged_upstreams_are_kept(alone, origin):
    with Client(alone) as client:
        client.get("/ok")
        for n in range(3):
            alone.tables["listener"][0]["backlog"] = 100 + n
            renew(alone)
            client.get("/ok")
        assert origin.accepted == 1
        alone.tables["upstream"][0]["pool"] = {"max_idle": 3}
        assert "1 upstream changed" in renew(alone)
        client.get("/ok")
        assert origin.accepted == 2
        wait_until(lambda: len(origin.open) == 1, 20, "the end of the connection of before")


def test_timeouts_and_limits(alone, origin):
    held = threading.Event()
    origin.on("/held", lambda connection, request: (held.wait(20), connection.send(OK)))
    with same_workers(alone), Client(alone) as kept, Client(alone) as running, http2(alone) as h2:
        assert kept.get("/ok", "X-Long: " + "x" * 3000).status == 200
        running.send(b"GET /held HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        origin.wait_seen("/held")
        alone.tables["listener"][0]["timeouts"] = {"first_byte": "200ms"}
        alone.tables["listener"][0]["limits"] = {"head": "1KiB"}
        assert "1 listener changed" in renew(alone)
        assert kept.get("/held").status == 504
        assert h2.ask("/held", authority="edge.test").status == 504
        with Client(alone) as new:
            assert new.get("/ok", "X-Long: " + "x" * 3000).status == 431
        assert kept.get("/ok", "X-Long: " + "x" * 3000).status == 431
        held.set()
        assert running.response().status == 200  # it began with the limits of before


def test_how_many_connections_there_may_be(alone):
    """They are counted over reloads: those that were there before are among them."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Client(alone)).send(b"GET /ok HTTP/1.1\r\n")
        alone.tables["listener"][0]["limits"] = {"connections": 5}
        for _ in range(2):
            renew(alone)
            with Client(alone) as fifth:
                fifth.send(b"GET /ok HTTP/1.1\r\n")
                with pytest.raises(OSError):
                    Client(alone)
            wait_until(lambda: alone.in_error_log("limits.connections"), 20, "the log's word of it")


def test_protocols_and_ciphers_are_for_new_connections(alone):
    context = alone.tls_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with same_workers(alone), http2(alone) as h2:
        alone.tables["listener"][0]["http2"] = {"enabled": False}
        alone.tables["tls"] = {"max_version": "1.2", "cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}
        assert "tls.max_version changed, tls.cipher_suites changed" in renew(alone)
        assert h2.ask("/ok", authority="edge.test").status == 200
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with Client(alone, context=context) as client:
            assert client.sock.selected_alpn_protocol() == "http/1.1"
            assert client.sock.version() == "TLSv1.2"
            assert client.sock.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_what_runs_goes_on(edge, origin):
    """A WebSocket, a slow download and a stream of HTTP/2, whose connection gets new ones."""
    go_on = threading.Semaphore(0)

    def slow(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(4):
            go_on.acquire(timeout=20)
            connection.send(b"x" * 1000)
        return True

    origin.on("/slow", slow)
    with same_workers(edge), WebSocket(edge) as ws, Client(edge) as down, http2(edge) as h2:
        ws.ping()
        down.send(b"GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        stream = h2.get("/slow", authority="edge.test")
        origin.wait_seen("/slow", 2)
        for n in range(4):
            edge.tables["route"][0]["timeouts"] = {"first_byte": f"{20 + n}s"}
            edge.tables["listener"][0]["http2"] = {"max_streams": 100 + n}
            renew(edge)
            ws.ping()
            go_on.release(2)
            assert h2.ask("/ok", authority="edge.test").status == 200
        response = down.response()
        assert (response.status, len(response.body), response.get("connection")) == (200, 4000, None)
        assert len(h2.response(stream).body) == 4000
        assert h2.goaways == []
        assert down.get("/ok").status == 200


def test_tickets_stay_good(alone):
    context = alone.tls_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with Client(alone, context=context) as client:
        session = client.sock.session

    def resumes() -> bool:
        raw = socket.create_connection(("127.0.0.1", alone.port), 10)
        with raw, context.wrap_socket(raw, server_hostname="edge.test", session=session) as again:
            return again.session_reused

    alone.tables["listener"][0]["backlog"] = 100
    renew(alone)
    assert resumes()
    alone.tables["tls"] = {"tickets": {"rotate": "1h"}}
    assert "tls.tickets changed" in renew(alone)
    assert not resumes()
    alone.tables["tls"] = {}
    renew(alone)
    assert resumes(), "the keys of before are there again"


def test_listeners_come_and_go_under_load(edge):
    other = free_port()
    faults = []
    done = threading.Event()
    served = 0

    def ask() -> None:
        nonlocal served
        while not done.is_set():
            try:
                with Client(edge) as client:
                    for _ in range(5):
                        assert client.get("/ok").status == 200
                        served += 1
            except (OSError, AssertionError) as e:
                faults.append(e)

    class Other:
        port = other
        tls_context = edge.tls_context

    threads = [threading.Thread(target=ask) for _ in range(3)]
    with same_workers(edge):
        for thread in threads:
            thread.start()
        first = edge.tables["listener"][0]
        for _ in range(3):
            edge.tables["listener"] = [first, {"bind": [f"127.0.0.1:{other}"]}]
            assert "1 listener added" in renew(edge)
            clients = [Client(Other) for _ in range(6)]
            assert {client.get("/ok").status for client in clients} == {200}
            with WebSocket(Other) as ws:
                ws.ping()
                edge.tables["listener"] = [first]
                assert "1 listener removed" in renew(edge)
                ws.ping()
                for client in clients:  # an idle one is closed, one that asks is answered before
                    with client, contextlib.suppress(OSError):
                        assert client.get("/ok").get("connection") == "close"
                wait_until(lambda: not listens(other), 20, "the end of the listener")
                ws.ping()
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert served > 30


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    return False


def test_a_removed_listener_says_goaway(edge):
    other = free_port()
    edge.tables["listener"].append({"bind": [f"127.0.0.1:{other}"]})
    renew(edge)

    class Other:
        port = other
        tls_context = edge.tls_context

    with http2(Other) as h2:
        assert h2.ask("/ok", authority="edge.test").status == 200
        del edge.tables["listener"][1]
        renew(edge)
        assert h2.end() == (1, 0)


def test_a_handoff_listener_comes_and_goes(alone, tmp_path):
    path = tmp_path / "handoff.sock"
    with same_workers(alone):
        alone.tables["listener"].append({"bind": [f"unix:{path}"], "kind": "handoff", "handoff": {"mode": "0600"}})
        assert "1 listener added" in renew(alone)
        assert path.is_socket()
        del alone.tables["listener"][1]
        assert "1 listener removed" in renew(alone)
        assert not path.exists()
        assert Client(alone).get("/ok").status == 200


RULES = """
import asyncio
from pathlib import Path

ANSWER = "THIS"

class Policy:
    def __init__(self):
        self.mark = "THIS"

    async def director(self, request):
        if request.path == "/wait":
            marks = Path(__file__).parent
            (marks / "waits").touch()
            while not (marks / "go").exists():
                await asyncio.sleep(0.01)
        request.respond(200, body=f"{ANSWER} {self.mark} {request.path}")
"""


def test_policies_change_while_one_waits(alone):
    def write(answer: str) -> None:
        (alone.directory / "rules.py").write_text(RULES.replace("THIS", answer))

    with same_workers(alone), Client(alone) as waits, Client(alone) as asks:
        write("one")
        alone.tables["server"]["hooks"] = "rules:Policy"
        assert "server.hooks changed, policies changed" in renew(alone)
        assert asks.get("/a").body == b"one one /a"
        waits.send(b"GET /wait HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        wait_until((alone.directory / "waits").exists, 10, "the director")
        write("two")
        assert "policies changed" in renew(alone)
        assert asks.get("/a").body == b"two two /a"
        (alone.directory / "rules.py").write_text("class Policy:\n    x =")
        assert "SyntaxError" in refused(alone)
        assert asks.get("/a").body == b"two two /a"
        (alone.directory / "go").touch()
        assert waits.response().body == b"one one /wait"
        assert waits.get("/a").body == b"two two /a"
        alone.tables["server"].pop("hooks")
        renew(alone)
        assert asks.get("/ok").body == b"ok"


def test_a_policy_that_takes_long_to_import_stops_nobody(alone):
    (alone.directory / "rules.py").write_text(
        "import time, os\n"
        "if 'worker' in open('/proc/self/cmdline').read():\n"
        "    time.sleep(1.5)\n"
        "class Policy:\n    def response(self, request, response): response.headers['x-new'] = '1'\n"
    )
    alone.tables["server"]["hooks"] = "rules:Policy"
    alone.write()
    with Client(alone) as client:
        mark = alone.mark()
        alone.reload()
        asked = 0
        longest = 0.0
        while not alone.in_error_log("generation 2 serves", mark):
            began = time.monotonic()
            response = client.get("/ok")
            longest = max(longest, time.monotonic() - began)
            assert response.status == 200
            asked += 1
        assert longest < 1.2
        assert asked > 20
        assert client.get("/ok").get("x-new") == "1"


def test_logs_and_process_wide_settings(alone, tmp_path):
    with same_workers(alone), Client(alone) as client:
        client.get("/ok")
        alone.wait_request(path="/ok")
        moved, pid_file = tmp_path / "moved.log", tmp_path / "edge.pid"
        alone.tables["server"] |= {
            "access_log": {"path": moved},
            "pid_file": pid_file,
            "drain_timeout": "7s",
            "memory_limit": "1GiB",
            "hook_timeout": "50ms",
        }
        said = renew(alone)
        for key in ("drain_timeout", "memory_limit", "pid_file", "access_log", "hook_timeout"):
            assert f"server.{key} changed" in said
        wait_until(lambda: pid_file.exists() and int(pid_file.read_text().split()[0]) == alone.pid, 20, "the PID file")
        client.get("/ok?moved")
        wait_until(lambda: moved.exists() and "/ok?moved" in moved.read_text(), 20, "a line in the new log")
        assert "moved" not in alone.access_log.read_text()


def test_a_reload_that_is_refused_changes_nothing(edge, origin):
    taken = origin.server.split(":")[1]
    with same_workers(edge), Client(edge) as client, WebSocket(edge) as ws:
        client.get("/ok")
        good = dict(edge.tables)
        for change, reason in (
            ({"nonsense": {"a": 1}}, "unknown key"),
            ({"certificate": [{"chain": "nothing.pem", "key": "nothing.key"}]}, "nothing.pem: no such file"),
            ({"listener": [*good["listener"], {"bind": [f"127.0.0.1:{taken}"]}]}, "is in use already"),
            ({"route": [{"match": {}, "upstream": "nobody"}]}, 'there is no upstream "nobody"'),
        ):
            edge.tables = {**good, **change}
            assert reason in refused(edge)
            ws.ping()
            assert client.get("/ok").status == 200
        edge.tables = good
        assert generation(renew(edge)) >= 2


def test_a_worker_that_cannot_take_it_over_keeps_all_at_the_old(edge):
    """A policy that imports in the master and in one worker, and not in the other."""
    _, second = edge.workers()
    (edge.directory / "rules.py").write_text(
        f"import os\nif os.getpid() == {second}:\n    raise OSError('not here')\n"
        "class Policy:\n    def director(self, request): request.respond(418)\n"
    )
    with same_workers(edge):
        edge.tables["server"]["hooks"] = "rules:Policy"
        assert "worker 1 cannot: ConfigError" in refused(edge)
        for _ in range(8):
            with Client(edge) as client:
                assert client.get("/ok").status == 200
        edge.tables["server"].pop("hooks")
        edge.tables["listener"][0]["backlog"] = 77
        renew(edge)


@pytest.mark.parametrize("when", ["before it has prepared", "after"])
def test_a_worker_is_killed_in_the_middle(edge, when):
    first, second = edge.workers()
    marks = edge.directory
    other = first if when == "after" else second
    (edge.directory / "rules.py").write_text(
        f"import os, time, pathlib\n"
        f"if os.getpid() in ({first}, {second}):\n"
        f"    pathlib.Path({str(marks)!r}, 'at-%d' % os.getpid()).touch()\n"
        f"    while os.getpid() == {other} and not pathlib.Path({str(marks)!r}, 'go').exists():\n"
        f"        time.sleep(0.01)\n"
        "class Policy:\n    def response(self, request, response): response.headers['x-new'] = '1'\n"
    )
    edge.tables["server"]["hooks"] = "rules:Policy"
    edge.write()
    mark = edge.mark()
    edge.reload()
    wait_until(lambda: all((marks / f"at-{pid}").exists() for pid in (first, second)), 20, "both workers at it")
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: len(edge.workers()) == 2 and second not in edge.workers(), 20, "another worker")
    (marks / "go").touch()
    edge.wait_error("generation 2 serves", mark, seconds=20)
    assert first in edge.workers()
    for _ in range(12):
        with Client(edge) as client:
            assert client.get("/ok").get("x-new") == "1"


def test_a_storm_of_hups_is_folded(edge):
    with same_workers(edge), WebSocket(edge) as ws:
        for n in range(50):
            edge.tables["listener"][0]["backlog"] = 100 + n
            edge.write()
            edge.reload()
            time.sleep(0.005)
        wait_until(lambda: edge.in_error_log("1 listener changed"), 10, "a reload")
        edge.tables["route"].append({"match": {"path": "/last"}, "upstream": "b"})
        said = renew(edge)
        wait_until(lambda: "/last" in edge.config.read_text(), 20, "the file")
        assert generation(said) < 50
        ws.ping()
    assert edge.check_health() is None


def test_only_workers_and_their_user_replace_processes(edge):
    before = edge.workers()
    edge.tables["server"]["workers"] = 3
    assert renew(edge).endswith("3 workers; server.workers changed; all workers replaced")
    wait_until(lambda: len(edge.workers()) == 3 and not set(edge.workers()) & set(before), 15, "other workers")


def test_edge_reload_waits_and_tells(edge, tmp_path):
    edge.tables["server"]["admin"] = {"path": tmp_path / "admin.sock"}
    edge.tables["server"]["pid_file"] = tmp_path / "edge.pid"
    renew(edge)

    def reload(*options):
        command = [sys.executable, "-m", "edge", "reload", "--config", edge.config, *options]
        return run(command, cwd=ROOT)

    edge.tables["route"].append({"match": {"path": "/x"}, "upstream": "b"})
    edge.write()
    with same_workers(edge):
        done = reload("--wait")
        assert done.returncode == 0, done.stdout
        assert "1 route added" in done.stdout
        edge.config.write_text("nonsense")
        done = reload("--wait")
        assert done.returncode != 0
        assert "is no TOML" in done.stdout
