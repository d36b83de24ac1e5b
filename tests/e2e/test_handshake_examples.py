"""The examples of the handshake's hooks, as a user starts them."""

import concurrent.futures
import json
import socket
import tempfile
import time
from pathlib import Path

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine

from edge import tls
from tests import redis_server
from tests.e2e.examples import run_example
from tests.e2e.processes import peer, run, wait_until

redis = pytest.importorskip("redis", reason="the Python package redis is not installed")


@pytest.fixture
def directory():
    """A short path: that of a Unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def resumed(running, session, *arguments):
    """Whether openssl's session is resumed; what the server gives is kept in the file again."""
    use = ["-sess_in", session] if session.exists() else []
    command = [peer("openssl"), "s_client", "-connect", f"localhost:{running.port}", "-servername", "localhost"]
    command += ["-CAfile", running.ca, "-verify_return_error", "-ign_eof", "-sess_out", session, *use, *arguments]
    done = run(command, input="GET / HTTP/1.0\r\n\r\n", seconds=30)
    assert "HTTP/1.1 200" in done.stdout, done.stdout + done.stderr
    return "\nReused, " in done.stdout


def is_settled(store):
    """Whether sessions are stored, and no more are on their way: a client gets several tickets."""
    before = store.dbsize()
    time.sleep(0.3)
    return before and store.dbsize() == before


def test_sessions_in_redis(directory):
    redis_server.program()
    with run_example("redis-tickets", directory) as running:
        store = redis.Redis(unix_socket_path=str(running.directory / "redis.sock"))
        for version in ("-tls1_2", "-tls1_3"):
            session = directory / version
            assert not resumed(running, session, version)
            wait_until(lambda: is_settled(store), 20, "the session is stored")
            assert resumed(running, session, version)
            wait_until(lambda: is_settled(store), 20, "the next one is stored")
            assert all(0 < store.ttl(name) <= 24 * 3600 for name in store.keys("tls:*"))
            store.flushall()
            assert not resumed(running, session, version)
            wait_until(lambda: is_settled(store), 20, "the session is stored")
            store.flushall()
        assert not resumed(running, session, version)
        wait_until(lambda: is_settled(store), 20, "the session is stored")
        # Sealed: a session that is changed in the store is none.
        for name in store.keys("tls:*"):
            store.set(name, store.get(name)[:-1] + b"\0\0")
        assert not resumed(running, session, version)
        # Without the store handshakes are made in full, and the operator is told.
        store.shutdown(nosave=True)
        assert not resumed(running, session, version)
        wait_until(lambda: "hook wrap: ConnectionError" in running.log, 20, "the failure is told of")


def issued(running):
    """What the authority was asked for."""
    with socket.socket(socket.AF_UNIX) as service:
        service.settimeout(30)
        service.connect(str(running.directory / "authority.sock"))
        service.sendall(b"GET /issued HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: service.recv(65536), b""))
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_certificates_on_demand(directory):
    with run_example("on-demand-certificates", directory) as running:
        trusted = tls.Config(root_cas=str(running.directory / "issuer.pem"))

        def connect(name):
            raw = socket.create_connection(("127.0.0.1", running.port), timeout=60)
            with tls.client(raw, trusted, server_name=name) as conn:
                conn.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return conn.recv(12)

        # The first client goes before its certificate is there; a hundred more are there by then.
        config = ClientConfig(server_name="alice.example.test")
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as goer:
            goer.sendall(Engine(config).take_output())
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            assert set(pool.map(connect, ["alice.example.test"] * 100)) == {b"HTTP/1.1 200"}
        assert issued(running) == ["alice.example.test"]
        assert connect("bob.example.test") == b"HTTP/1.1 200"
        assert issued(running) == ["alice.example.test", "bob.example.test"]
        # A name that nobody may ask for has the certificate of the configuration.
        with pytest.raises(tls.CertificateError):
            connect("a.alice.example.test")
        assert running.curl("/")[0] == 200
        assert len(issued(running)) == 2
