"""The observer: what a scraper is answered, agrees with what clients did, and goes on whatever happens to processes."""

import contextlib
import http.client
import itertools
import os
import re
import signal
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.client import Client
from tests.e2e.processes import answers, free_port, run, wait_until
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge

SECONDS = 30


class Scraper:
    """Of the metrics of an edge."""

    def __init__(self, edge):
        self.port = int(edge.tables["server"]["metrics"].rpartition(":")[2])

    def get(self, path="/metrics", method="GET", body=None, **headers):
        """(status, header fields, content)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def samples(self):
        """{(name, (label, value), ...): value} of all that there is."""
        status, _, content = self.get()
        assert status == 200, content
        families = text_string_to_metric_families(content.decode())
        found = [sample for family in families for sample in family.samples]
        return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in found}

    def until(self, **wanted):
        """Waits until all of these have grown by so much since `mark`: {name: growth}, summed over their labels."""

        def grown():
            now = self.samples()
            return {name: summed(now, name) - summed(self.before, name) for name in wanted}

        end = time.monotonic() + SECONDS
        while (found := grown()) != wanted:
            assert time.monotonic() < end, f"{found}, not {wanted}"
            time.sleep(0.1)

    def mark(self):
        """What came before is over, and no answer of then is given any more."""
        time.sleep(0.1)
        wait_until(lambda: not summed(self.samples(), "edge_connections"), SECONDS, "no connection")
        self.before = self.samples()


def summed(samples, name, **labels):
    wanted = set(labels.items())
    return sum(value for key, value in samples.items() if key[0] == name and wanted <= set(key[1:]))


def raw(port, data):
    """What comes back for these bytes, to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        sock.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := sock.recv(65536):
                answer += more
    return answer


@pytest.fixture(scope="module")
def backend():
    with Backend() as made:
        made.on("/missing", lambda c, _: c.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        made.on("/broken", lambda c, _: c.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"))
        made.on("/slow", lambda c, _: (time.sleep(0.3), c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
        yield made


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, backend):
    server = Edge(
        tmp_path_factory.mktemp("metrics"),
        pki,
        {"app": [backend.server]},
        routes=[
            {"match": {"host": ["edge.test"], "path": "/slow"}, "upstream": "app", "name": "the slow one"},
            {"match": {"host": ["edge.test"], "method": ["GET", "POST"]}, "upstream": "app"},
        ],
        server={"metrics": f"127.0.0.1:{free_port()}", "workers": 2},
        tls={"early_data": {"max_bytes": "4KiB"}},
    )
    with server:
        yield server


@pytest.fixture
def scraper(edge):
    found = Scraper(edge)

    def is_there():
        with contextlib.suppress(OSError):
            return found.get()[0] == 200 and found.samples().get(("edge_generation",))
        return False

    wait_until(is_there, SECONDS, "an answer")
    found.mark()
    return found


def growth(scraper, name, **labels):
    now = scraper.samples()
    return summed(now, name, **labels) - summed(scraper.before, name, **labels)


def test_requests_by_route_upstream_server_and_status(edge, scraper, backend):
    with Client(edge) as client:
        statuses = [client.get(path).status for path in ("/ok", "/ok", "/missing", "/broken", "/slow")]
        assert statuses == [200, 200, 404, 500, 200]
        assert client.request("PUT", "/ok").status == 404
    scraper.until(edge_requests_total=6, edge_requests_forwarded_total=5)
    assert growth(scraper, "edge_requests_total", status="2xx") == 3
    assert growth(scraper, "edge_requests_total", status="4xx") == 2
    for labels in ({"route": "edge.test/* GET,POST"}, {"upstream": "app"}, {"server": backend.server}):
        name = f"edge_{next(iter(labels))}"
        slow = 0 if "route" in labels else 1
        assert growth(scraper, f"{name}_requests_total", status="2xx", **labels) == 2 + slow
        assert growth(scraper, f"{name}_requests_total", status="4xx", **labels) == 1
        assert growth(scraper, f"{name}_requests_total", status="5xx", **labels) == 1
        assert growth(scraper, f"{name}_first_byte_seconds_count", **labels) == 4 + slow
    assert growth(scraper, "edge_route_requests_total", route="none", status="4xx") == 1
    assert growth(scraper, "edge_route_seconds_count", route="the slow one") == 1
    assert 0.3 <= growth(scraper, "edge_route_seconds_sum", route="the slow one") < SECONDS
    assert growth(scraper, "edge_route_seconds_bucket", route="the slow one", le="0.262144") == 0
    assert growth(scraper, "edge_server_connects_total") >= 1
    asked = growth(scraper, "edge_server_connects_total") + growth(scraper, "edge_server_reuses_total")
    assert asked == 5 + growth(scraper, "edge_server_retries_total")
    assert growth(scraper, "edge_connections_accepted_total") == 1
    wait_until(lambda: not summed(scraper.samples(), "edge_connections"), SECONDS, "no connection")


REQUEST = "GET /ok HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"


def s_client(edge, tmp_path, *arguments):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "edge.test"]
    command += ["-CAfile", str(edge.pki.ca.file), "-ign_eof", *arguments]
    return run(command, seconds=SECONDS, input=REQUEST, cwd=tmp_path)


def one_group(edge, version, curve, ciphers=None):
    context = ssl.create_default_context(cafile=edge.pki.ca.file)
    context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    context.set_ecdh_curve(curve)
    return context


def connected(edge, context, session=None):
    """A handshake and a request -> the session, to be resumed"""
    tcp = socket.create_connection(("127.0.0.1", edge.port), timeout=SECONDS)
    with context.wrap_socket(tcp, server_hostname="edge.test", session=session) as tls:
        tls.sendall(REQUEST.encode())
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")
        return tls.session


def test_handshakes_by_version_suite_group_and_resumption(edge, scraper):
    modern = one_group(edge, ssl.TLSVersion.TLSv1_3, "prime256v1")
    connected(edge, modern, connected(edge, modern))
    old = one_group(edge, ssl.TLSVersion.TLSv1_2, "prime256v1", "ECDHE-ECDSA-CHACHA20-POLY1305")
    connected(edge, old, connected(edge, old))
    scraper.until(edge_handshakes_total=4, edge_handshake_seconds_count=4)
    for version, group, resumed in (("1.3", "secp256r1", "false"), ("1.3", "secp256r1", "true"),
                                    ("1.2", "secp256r1", "false"), ("1.2", "-", "true")):  # fmt: skip
        labels = {"version": version, "group": group, "resumed": resumed}
        assert growth(scraper, "edge_handshakes_total", **labels) == 1, labels
    suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    assert growth(scraper, "edge_handshakes_total", cipher_suite=suite) == 2
    assert growth(scraper, "edge_handshake_seconds_count", resumed="true") == 2
    assert growth(scraper, "edge_handshake_failures_total") == 0


def test_early_data(edge, scraper, tmp_path):
    (tmp_path / "early").write_text(REQUEST, newline="")
    first = s_client(edge, tmp_path, "-tls1_3", "-sess_out", "session")
    assert "200" in first.stdout, first.stdout + first.stderr
    s_client(edge, tmp_path, "-tls1_3", "-sess_in", "session", "-early_data", "early")
    # A second key share: what was early cannot be read (RFC 9846, section 4.2.10).
    s_client(edge, tmp_path, "-tls1_3", "-sess_in", "session", "-early_data", "early", "-groups", "P-521:P-256")
    scraper.until(edge_handshakes_total=3, edge_early_data_total=2)
    assert growth(scraper, "edge_early_data_total", outcome="accepted") == 1
    assert growth(scraper, "edge_early_data_total", outcome="hello_retry") == 1


def test_alerts_and_handshakes_that_fail(edge, scraper):
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(edge, context=ssl.create_default_context())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-SHA")
    with pytest.raises(ssl.SSLError):
        Client(edge, context=context)
    scraper.until(edge_handshake_failures_total=2, edge_alerts_total=2)
    assert growth(scraper, "edge_alerts_total", direction="received", alert="unknown_ca") == 1
    assert growth(scraper, "edge_alerts_total", direction="sent", alert="handshake_failure") == 1


def test_what_the_master_knows(edge, scraper):
    found = scraper.samples()
    assert found["edge_workers", ("state", "serving")] == 2
    assert abs(found["edge_start_time_seconds",] - time.time()) < 600
    (expiry,) = [value for key, value in found.items() if key[0] == "edge_certificate_expiry_time_seconds"]
    assert expiry > time.time()
    assert found["edge_ticket_key_age_seconds", ("state", "seals")] >= 0
    for process in ("master", "worker", "observer"):
        assert found["edge_process_resident_bytes", ("process", process)] > 1 << 20, process
    for name in ("edge_descriptors_limit", "edge_loop_turn_seconds_count"):     # once loops have turned
        wait_until(lambda name=name: summed(scraper.samples(), name) > 0, SECONDS, name)
    (info,) = [key for key in found if key[0] == "edge_info"]
    assert re.fullmatch(r"\d+\.\d+.*", dict(info[1:])["version"])


def test_openmetrics_and_head(edge, scraper):
    status, headers, content = scraper.get(Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert any(family.name == "edge_requests" for family in openmetrics(content.decode()))
    status, headers, content = scraper.get(method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", 405),
        (b"DELETE /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n" + b"x" * 50000, 413),
    ],
    ids=lambda value: None if isinstance(value, int) else value[:20].decode("latin-1").strip(),
)
def test_exact_statuses(scraper, request_, status):
    answer = raw(scraper.port, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    if status == 404:
        assert answer.endswith(b"there is: /metrics\n")
    if status == 405:
        assert b"\r\nallow: get, head\r\n" in answer.lower()


def test_several_requests_on_a_connection(scraper):
    connection = http.client.HTTPConnection("127.0.0.1", scraper.port, timeout=SECONDS)
    with contextlib.closing(connection):
        for path, status in (("/metrics", 200), ("/nothing", 404), ("/metrics", 200)):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert connection.sock is not None


def test_who_hangs_holds_nobody_up(edge, scraper):
    """More clients than are taken say nothing, or do not take their answer: they are let go, others are answered."""
    with contextlib.ExitStack() as stack:
        for i in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", scraper.port), timeout=SECONDS))
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20 if i % 2 else b"GET /metr")
        with Client(edge) as client:
            assert client.get("/ok").status == 200
    wait_until(lambda: quietly(scraper), SECONDS, "an answer after all of them have gone")


def test_who_says_nothing_gives_way(scraper):
    """However many they are: who asks is answered while they are there."""
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", scraper.port), timeout=SECONDS))
            with contextlib.suppress(OSError):
                sock.sendall(b"GET /metr")
        for _ in range(20):
            assert scraper.get()[0] == 200


def quietly(scraper):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return scraper.get()[0] == 200
    return False


def test_counters_survive_a_worker_that_is_killed(edge, scraper):
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    scraper.until(edge_requests_total=1, edge_handshakes_total=1)
    before = scraper.samples()
    victims = edge.workers()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    seen = []

    def replaced():
        seen.append(scraper.samples())
        there = set(edge.workers())
        return len(there - set(victims)) == 2 and summed(seen[-1], "edge_workers", state="serving") == 2

    wait_until(replaced, SECONDS, "two new workers")
    assert never_backwards([before, *seen]) > 50
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    scraper.until(edge_requests_total=2, edge_handshakes_total=2)
    wait_until(lambda: growth(scraper, "edge_worker_restarts_total") == 2, SECONDS, "two restarts")


def never_backwards(looks):
    """That no counter of one look is below that of the look before -> how many there are."""
    names = 0
    for earlier, later in itertools.pairwise(looks):
        counters = [key for key in earlier if re.search(r"_(total|count|sum|bucket)$", key[0])]
        names = max(names, len(counters))
        for key in counters:
            if key[0] != "edge_worker_restarts_total":          # of places that are there
                assert later[key] >= earlier[key], key
    return names


def test_counters_survive_twenty_reloads(edge, scraper):
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    scraper.until(edge_requests_total=1)
    looks, asked, end = [scraper.samples()], 0, time.monotonic() + 4 * SECONDS
    observers = edge.titled("edge: observer")
    accepted = summed(looks[0], "edge_reloads_total", outcome="accepted")
    while summed(looks[-1], "edge_reloads_total", outcome="accepted") < accepted + 20:
        if summed(looks[-1], "edge_reloads_total", outcome="accepted") == accepted + asked:
            edge.reload()
            asked += 1
        looks.append(scraper.samples())
        assert time.monotonic() < end, asked
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    scraper.until(edge_requests_total=2)
    never_backwards(looks)
    assert edge.titled("edge: observer") == observers, "it runs on"
    assert scraper.samples()["edge_last_reload_accepted",] == 1


def test_an_observer_that_is_killed_comes_back(edge, scraper):
    before = scraper.samples()
    (observer,) = edge.titled("edge: observer")
    waiting = socket.create_connection(("127.0.0.1", scraper.port), timeout=SECONDS)
    os.kill(observer, signal.SIGKILL)
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    waiting.close()
    answer = scraper.get()                  # the socket is open all the time: this waits for the next observer
    assert answer[0] == 200
    scraper.until(edge_requests_total=1)
    never_backwards([before, scraper.samples()])
    assert len(edge.titled("edge: observer")) == 1


def test_an_address_that_is_taken_changes_nothing(edge, scraper):
    mark = edge.mark()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        kept = edge.tables["server"]["metrics"]
        edge.tables["server"]["metrics"] = f"127.0.0.1:{taken.getsockname()[1]}"
        edge.write()
        edge.reload()
        said = edge.wait_error("refused", mark, SECONDS)
        edge.tables["server"]["metrics"] = kept
        edge.write()
    assert re.search(r"edge\.toml: server\.metrics\.bind: .*is in use already; stop what listens there", said)
    wait_until(lambda: growth(scraper, "edge_reloads_total", outcome="rejected") == 1, SECONDS, "a rejected reload")
    assert scraper.samples()["edge_last_reload_accepted",] == 0


def test_another_address_and_none(tmp_path, pki, backend):
    first, second = free_port(), free_port()
    server = {"metrics": f"127.0.0.1:{first}"}
    with Edge(tmp_path, pki, {"app": [backend.server]}, server=server) as edge:
        assert wait_until(lambda: quietly(Scraper(edge)), SECONDS, "an answer")
        old = Scraper(edge)
        edge.tables["server"]["metrics"] = f"127.0.0.1:{second}"
        edge.write()
        edge.reload()
        wait_until(lambda: quietly(Scraper(edge)), SECONDS, "an answer at the other address")
        wait_until(lambda: not quietly(old), SECONDS, "none at the first")
        del edge.tables["server"]["metrics"]
        edge.write()
        edge.reload()
        wait_until(lambda: not edge.titled("edge: observer"), SECONDS, "no observer")
        wait_until(lambda: not answers(second), SECONDS, "nobody listens")


def test_the_observer_has_nothing_of_the_workers(edge, scraper):
    """No listening socket of clients, none of their connections, and not what they send spans by."""
    with Client(edge) as client:
        assert client.get("/ok").status == 200
        (observer,) = edge.titled("edge: observer")
        os.kill(observer, signal.SIGSTOP)
        try:
            inodes = sockets_of(observer)
            for pid in edge.workers():
                shared = sockets_of(pid) & inodes
                assert not {inode for inode in shared if port_of(inode) == edge.port}
                assert len(shared) == 1  # by which all log
        finally:
            os.kill(observer, signal.SIGCONT)


def sockets_of(pid):
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
                found.add(int(match[1]))
    return found


def port_of(inode):
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if int(parts[9]) == inode:
            return struct.unpack(">H", bytes.fromhex(parts[1].rpartition(":")[2]))[0]
    return None
