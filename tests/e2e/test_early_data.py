"""Early data end to end: what real clients send early goes upstream, or waits, as its route says; and no replay of it
is served, whoever gets it, and whenever."""

import base64
import concurrent.futures
import contextlib
import re
import socket
import threading

import pytest

from tests.e2e.examples import run_example
from tests.e2e.processes import peer, run, wait_until
from tests.e2e.relay import Relay
from tests.e2e.scripted import OK, Backend
from tests.e2e.server import Edge
from tests.early_client import EarlyClient, session_of

SECONDS = 30
NAME = "edge.test"
EARLY = {"early_data": {"window": "10s"}}
FORWARDING = [{"match": {}, "upstream": "b"}, {"match": {"path": "/f/*"}, "upstream": "b", "early_data": "forward"}]

# The talk's table: what goes to the backend in early data, and what waits for the handshake.
TABLE = {
    "get": ("GET /f/{} HTTP/1.1", "", "", True),
    "head": ("HEAD /f/{} HTTP/1.1", "", "", True),
    "get-query": ("GET /f/{}?a=1 HTTP/1.1", "", "", False),
    "post": ("POST /f/{} HTTP/1.1", "Content-Length: 3\r\n", "abc", False),
    "websocket": (
        "GET /f/{} HTTP/1.1",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n",
        "",
        False,
    ),
}


class Arrivals:
    """A handler that notes its requests, and whether the client could have sent its Finished by then."""

    def __init__(self, relay=None):
        self.relay = relay
        self.seen = []

    def __call__(self, connection, request):
        connection.body(request)
        self.seen.append((request, self.relay is not None and self.relay.holding))
        connection.send(OK if request.method != "HEAD" else OK[:-2])
        return True


def request_text(case, path):
    line, fields, body, _ = TABLE[case]
    fields = fields if case == "websocket" else f"Connection: close\r\n{fields}"
    return f"{line.format(path)}\r\nHost: {NAME}\r\n{fields}\r\n{body}"


@pytest.fixture(scope="module")
def early_backend():
    with Backend() as backend:
        backend.on("/f/first", backend.handlers["/ok"])
        yield backend
        assert backend.faults == []


@pytest.fixture(scope="module")
def early_edge(tmp_path_factory, pki, early_backend):
    with Edge(
        tmp_path_factory.mktemp("early"),
        pki,
        {"b": [early_backend.server]},
        tls=EARLY,
        routes=FORWARDING,
        server={"workers": 2},
        listener={"timeouts": {"handshake": "30s", "keepalive": "600ms"}},
    ) as edge:
        yield edge


# Clients: each sends the text in a file as early data, on the connection that the relay holds.


class OpenSsl:
    direct = 0

    def __init__(self, edge, pki, directory):
        self.session = directory / "session"
        self.command = [peer("openssl"), "s_client", "-CAfile", pki.ca.file, "-servername", NAME, "-tls1_3", "-ign_eof"]
        ask = f"GET /f/first HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
        first = [*self.command, "-connect", f"127.0.0.1:{edge.port}", "-sess_out", self.session]
        assert "200 OK" in run(first, input=ask, seconds=SECONDS).stdout

    def run(self, port, file):
        last = [*self.command, "-connect", f"127.0.0.1:{port}", "-sess_in", self.session, "-early_data", file]
        said = run(last, input="", seconds=SECONDS).stdout
        assert "Early data was accepted" in said, said


class GnuTls:
    direct = 1

    def __init__(self, edge, pki, directory):
        program = peer("gnutls-cli")
        version = re.search(r"gnutls-cli (\d+)\.(\d+)", run([program, "--version"]).stdout)
        if (int(version[1]), int(version[2])) >= (3, 8):
            pytest.skip("gnutls-cli 3.8 resumes before it has its ticket, and offers no early data then")
        self.command = [program, "--sni-hostname", NAME, "--verify-hostname", NAME, "--x509cafile", pki.ca.file]
        self.command += ["--resume", "--waitresumption", "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "127.0.0.1"]

    def run(self, port, file):
        said = run([*self.command, "--port", port, "--earlydata", file], input="", seconds=SECONDS).stdout
        assert "This is a resumed session" in said, said


class Nss:
    direct = 1

    def __init__(self, edge, pki, directory):
        places = ("/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
        database = f"sql:{directory}"
        for command in (["-N", "--empty-password"], ["-A", "-n", "ca", "-t", "C,,", "-i", pki.ca.file]):
            assert run([peer("certutil"), "-d", database, *command]).returncode == 0
        self.command = [peer("tstclnt", *places), "-h", "127.0.0.1", "-a", NAME, "-d", database]
        self.command += ["-V", "tls1.3:tls1.3", "-Z", "-L", "2"]

    def run(self, port, file):
        with open(file) as stdin:
            run([*self.command, "-p", port, "-A", file], stdin=stdin, seconds=SECONDS)


class Own:
    direct = 0

    def __init__(self, edge, pki, directory):
        self.session = session_of(edge.port, name=NAME)

    def run(self, port, file):
        with EarlyClient(port, self.session, name=NAME) as client:
            client.send(file.read_bytes())
            assert client.flight()
            client.confirm()
            while b"\r\n\r\n" not in client.plain:
                client.take()
            assert client.plain.startswith(b"HTTP/1.1 200 OK")


CLIENTS = {"openssl": OpenSsl, "gnutls": GnuTls, "nss": Nss, "edge": Own}


@pytest.fixture(scope="module", params=CLIENTS)
def client(request, early_edge, pki, tmp_path_factory):
    made = CLIENTS[request.param](early_edge, pki, tmp_path_factory.mktemp(request.param))
    made.name = request.param
    return made


@pytest.mark.parametrize("case", TABLE)
def test_the_table(client, early_edge, early_backend, tmp_path, case):
    path = f"{client.name}-{case}"
    at_once = TABLE[case][3]
    file = tmp_path / "request"
    file.write_text(request_text(case, path))
    with Relay(early_edge.port, client.direct) as relay, concurrent.futures.ThreadPoolExecutor(1) as pool:
        arrivals = Arrivals(relay)
        early_backend.on(f"/f/{path}", arrivals)
        early_backend.on(f"/f/{path}?a=1", arrivals)
        running = pool.submit(client.run, relay.port, file)
        relay.quiet()
        if at_once:
            wait_until(lambda: any(early for _, early in arrivals.seen), SECONDS, "the request, before the handshake")
        relay.release()
        running.result(SECONDS)
        wait_until(lambda: arrivals.seen, SECONDS, "the request")
    early = [request for request, held in arrivals.seen if held]
    request, _ = arrivals.seen[-1]
    assert len(early) == at_once
    assert request.get("early-data") == ("1" if at_once else None)
    unique = request.get("early-data-unique")
    assert re.fullmatch(r"[0-9a-f]{64}-1", unique) if at_once else unique is None
    target = f"/f/{path}" + ("?a=1" if case == "get-query" else "")
    record = early_edge.wait_request(path=target, early_data=True)
    assert record["early_request"] == ("forwarded" if at_once else "confirmed")


def test_the_example(tmp_path):
    """docs/examples/early-data, as its first lines say."""
    with run_example("early-data", tmp_path) as running:
        assert running.curl("/request")[0] == 200
        session, file = tmp_path / "session", tmp_path / "request"
        command = [peer("openssl"), "s_client", "-connect", f"localhost:{running.port}", "-CAfile", running.ca]
        command.append("-ign_eof")
        ask = "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

        def early(path):
            run([*command, "-sess_out", session], input=ask.format("/request"), seconds=SECONDS)
            file.write_text(ask.format(path))
            return run([*command, "-sess_in", session, "-early_data", file], input="", seconds=SECONDS).stdout

        said = early("/request")
        assert "Early data was accepted" in said and '"Early-Data-Unique": "' in said, said
        assert "Early-Data" not in early("/request?a=1")
        assert "425 Too Early" in early("/reject/request")


# Replays of a captured first flight.


class Counting:
    """Counts its requests by path."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}

    def __call__(self, connection, request):
        with self.lock:
            self.counts[request.target] = self.counts.get(request.target, 0) + 1
        connection.send(OK)
        return True


@pytest.fixture
def counting(backend):
    counting = Counting()
    backend.on("/f/*", counting)
    return counting


@pytest.fixture
def replayed_edge(make_edge, backend, counting):
    def start(**tls):
        early = {"window": "60s", **tls.pop("early_data", {})}
        return make_edge(
            {"b": [backend.server]}, tls={"early_data": early, **tls}, routes=FORWARDING, server={"workers": 2}
        )

    return start


def first_flight(edge, session, path):
    """A ClientHello with a request behind it, that has not left yet."""
    client = EarlyClient(edge.port, session, name=NAME)
    client.engine.send(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    return client, client.engine.take_output()


def replay(edge, flight, times=1):
    """The flight, on so many connections at once; each gets the server's flight, and no more can be made of it."""
    socks = [socket.create_connection(("127.0.0.1", edge.port), SECONDS) for _ in range(times)]
    try:
        for sock in socks:
            sock.sendall(flight)
        for sock in socks:
            assert sock.recv(1) == b"\x16"
    finally:
        for sock in socks:
            sock.close()


def response(client):
    while b"\r\n\r\nok" not in client.plain:
        assert client.take()
    return client.plain


def test_replays_at_every_worker(replayed_edge, counting):
    """The captured flight again and again, until both workers have had it: the request is served once, and its client
    goes on."""
    edge = replayed_edge()
    client, flight = first_flight(edge, session_of(edge.port, name=NAME), "/f/once")
    with client:
        client.put(flight)
        assert client.flight()
        mark = edge.mark()
        reached = re.compile(r"\[(\d+)\] 127\.0\.0\.1:\d+: handshake failed: closed by the client")

        def workers():
            replay(edge, flight, 5)
            return len(set(reached.findall(edge.error_log.read_text()[mark:]))) == 2

        wait_until(workers, SECONDS, "both workers")
        client.confirm()
        assert b"200 OK" in response(client)
    assert counting.counts == {"/f/once": 1}


def test_a_thousand_replays_at_once(replayed_edge, counting):
    """None of them was first: whichever that is, there is one request. The ticket is good for another connection."""
    edge = replayed_edge()
    session = session_of(edge.port, name=NAME)
    client, flight = first_flight(edge, session, "/f/once")
    client.close()
    replay(edge, flight, 1000)
    wait_until(lambda: counting.counts, SECONDS, "the request")
    replay(edge, flight, 10)
    assert counting.counts == {"/f/once": 1}
    client, flight = first_flight(edge, session, "/f/other")
    with client:
        client.put(flight)
        assert client.flight()
        client.confirm()
        response(client)
    assert counting.counts == {"/f/once": 1, "/f/other": 1}


def test_replays_after_a_restart(replayed_edge, counting, tmp_path):
    """Tickets outlive it, the register's memory does not: for one window no early data of theirs is taken, their
    connections go on without; then it is again. What was captured before is never served."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(48)))
    window = {"early_data": {"window": "3s"}, "tickets": {"secret_file": secret}}
    edge = replayed_edge(**window)
    session = session_of(edge.port, name=NAME)
    client, flight = first_flight(edge, session, "/f/before")
    with client:
        client.put(flight)
        assert client.flight()
        client.confirm()
        response(client)
    edge.stop()
    edge.error_log.unlink()
    edge.start()
    replay(edge, flight, 20)
    client, after = first_flight(edge, session, "/f/after")
    with client:
        client.put(after)
        assert not client.flight(), "it has just started"
        client.confirm()
        assert client.engine.resumed
        client.send(f"GET /f/late HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        response(client)
    edge.wait_request(path="/f/late", early_data_refused="just started")
    assert counting.counts == {"/f/before": 1, "/f/late": 1}
    with contextlib.ExitStack() as open_until_the_end:

        def again():
            replay(edge, flight)
            client, after = first_flight(edge, session, "/f/again")
            open_until_the_end.enter_context(client)
            client.put(after)
            return client.flight()

        wait_until(again, SECONDS, "early data under a ticket of before")
    wait_until(lambda: "/f/again" in counting.counts, SECONDS, "the request")
    assert counting.counts == {"/f/before": 1, "/f/late": 1, "/f/again": 1}
    # A ticket of the new register is good at once.
    session = session_of(edge.port, name=NAME)
    client, flight = first_flight(edge, session, "/f/new")
    with client:
        client.put(flight)
        assert client.flight()


def test_a_register_of_another_process_on_the_same_host(replayed_edge, counting, tmp_path):
    """With the same secret: it can open the ticket, and knows nothing of what the other has taken."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(48)))
    one, other = (replayed_edge(tickets={"secret_file": secret}) for _ in range(2))
    client, flight = first_flight(one, session_of(one.port, name=NAME), "/f/once")
    with client:
        client.put(flight)
        assert client.flight()
        response(client)
    replay(other, flight, 4)
    assert counting.counts == {"/f/once": 1}


def test_a_reload_keeps_what_was_taken(replayed_edge, counting):
    edge = replayed_edge()
    client, flight = first_flight(edge, session_of(edge.port, name=NAME), "/f/once")
    with client:
        client.put(flight)
        assert client.flight()
        response(client)
    edge.tables["tls"]["early_data"]["unique_header"] = "Only-Once"
    edge.write()
    edge.reload()
    edge.wait_error("generation 2 serves", seconds=SECONDS)
    replay(edge, flight, 8)
    client, flight = first_flight(edge, session_of(edge.port, name=NAME), "/f/again")
    with client:
        client.put(flight)
        assert client.flight()
        response(client)
    assert counting.counts == {"/f/once": 1, "/f/again": 1}
