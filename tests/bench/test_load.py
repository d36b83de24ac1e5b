"""The load generator against servers in this process: Python's ssl, well-behaved and not."""

import contextlib
import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("bench.load", reason="the load generator is not built")

from bench.histogram import Histogram
from bench.load import Generator
from cext.tls.config import ClientConfig

from bench.load_command import build_request, report

ROOT = Path(__file__).resolve().parents[2]
BODY = b"0123456789" * 10


class Server:
    """A threaded TLS server: `answer(connection, request)` returns whether the connection goes on."""

    def __init__(self, answer, maximum=ssl.TLSVersion.TLSv1_3):
        self.answer = answer
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.maximum_version = maximum
        self.context.set_alpn_protocols(["http/1.1"])
        trustme.CA().issue_cert("localhost").configure_cert(self.context)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.requests = 0
        self.connections = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(raw,), daemon=True).start()

    def serve(self, raw):
        raw.settimeout(20)
        with raw, contextlib.suppress(OSError):
            connection = self.context.wrap_socket(raw, server_side=True)
            data = b""
            while more := connection.recv(65536):
                data += more
                while b"\r\n\r\n" in data:
                    request, _, data = data.partition(b"\r\n\r\n")
                    self.requests += 1
                    if not self.answer(connection, request):
                        connection.unwrap()
                        return

    def close(self):
        self.listener.close()


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(answer, **options):
            server = Server(answer, **options)
            stack.callback(server.close)
            return server

        yield start


def keeps(request):
    return b"connection: close" not in request.lower()


def well(connection, request):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
    return keeps(request)


def run(server, mode="handshake", port=None, **options):
    config = ClientConfig(server_name="localhost", alpn=(b"http/1.1",), min_version=0x0304)
    options.setdefault("timeout", 5)
    options.setdefault("concurrency", 4)
    options.setdefault("max_errors", 8)
    request = build_request("https://localhost/x", close=mode not in ("requests", "idle"))
    return Generator("127.0.0.1", port or server.port, config, request, mode=mode, **options).run()


def test_handshakes(serve):
    server = serve(well)
    result = run(server, count=40)
    assert result["errors"] == {}
    assert result["done"] == server.requests == server.connections == 40
    assert result["handshakes"] == result["latency_us"]["count"] == 40
    assert result["body_bytes"] == 40 * len(BODY)
    assert result["unclean_closes"] == 0
    assert result["negotiated"]["version"] == "0x0304"
    assert 0 < result["cpu_us"] < 1e6
    assert result["handshake_us"]["p50"] <= result["latency_us"]["max"]


def test_resumed_handshakes(serve):
    server = serve(well)
    result = run(server, count=40, resume=True)
    assert result["errors"] == {}
    assert result["done"] == server.connections == 40
    assert 20 <= result["resumed"] < 40, "the first ones have no session yet"
    assert run(serve(well), count=10)["resumed"] == 0


def test_requests_on_kept_connections(serve):
    server = serve(well)
    result = run(server, "requests", count=100)
    assert result["errors"] == {}
    assert result["done"] == result["latency_us"]["count"] == 100
    assert server.connections == 4
    assert server.requests == 104, "each connection makes one request before the measurement begins"
    assert result["body_bytes"] == 100 * len(BODY)


def test_a_run_is_bounded_by_time(serve):
    start = time.monotonic()
    result = run(serve(well), "requests", seconds=0.4)
    assert result["done"] > 0
    assert 0.4 <= result["seconds"] < 3
    assert time.monotonic() - start < 5


def test_requests_begin_by_the_clock(serve):
    result = run(serve(well), "requests", rate=200, seconds=1)
    assert result["errors"] == {}
    assert 150 <= result["done"] <= 220  # the end is looked for every 20 ms


def test_latency_at_a_rate_counts_from_when_a_request_was_due(serve):
    def slowly(connection, request):
        time.sleep(0.05)
        return well(connection, request)

    result = run(serve(slowly), "requests", rate=100, count=40, concurrency=1)
    assert result["done"] == 40
    assert result["latency_us"]["max"] > 40 * 35_000, "one connection does 20 a second: the last waits for the others"
    assert result["latency_us"]["p50"] < result["latency_us"]["max"] / 1.5


def test_handshakes_at_a_rate(serve):
    started = time.monotonic()
    result = run(serve(well), "handshake", rate=100, count=30, concurrency=8)
    assert result["done"] == result["handshakes"] == 30
    assert result["errors"] == {}
    assert 0.29 < time.monotonic() - started < 20


def test_idle_connections_are_held(serve):
    server = serve(well)
    held = []
    result = run(server, "idle", count=12, seconds=0.3, on_held=held.append)
    assert held == [12]
    assert result["done"] == server.connections == server.requests == 12
    assert result["errors"] == {}


def test_of_bare_connections_the_sockets_are_held(serve):
    server = serve(well)
    held = []

    def count(number):
        held.append((number, threading.active_count()))

    result = run(server, "idle", count=12, seconds=0.3, on_held=count, bare=True)
    assert [number for number, _ in held] == [12]
    assert held[0][1] >= 12, "the server has all of them"
    assert result["done"] == server.connections == server.requests == 12
    assert result["errors"] == {}


def test_names_and_requests_in_turn(serve):
    asked, named = [], []

    def note(connection, request):
        asked.append(request.split()[1])
        return well(connection, request)

    server = serve(note)
    server.context.sni_callback = lambda _connection, name, _context: named.append(name)
    names, targets = ["a.test", "b.test", "c.test"], ["https://a.test/1", "https://b.test/2"]
    configs = [
        ClientConfig(server_name="a.test"),
        *(lambda name=name: ClientConfig(server_name=name) for name in names[1:]),
    ]
    requests = [build_request(target, close=True) for target in targets]
    result = run(server, count=7, concurrency=1, configs=configs, requests=requests)
    assert result["errors"] == {}
    assert named == (names * 3)[:7]
    assert asked == ([b"/1", b"/2"] * 4)[:7]


def test_a_connection_closed_while_idle_is_an_error(serve):
    def impatient(connection, request):
        well(connection, request)
        time.sleep(0.2)
        return False

    result = run(serve(impatient), "idle", count=3, seconds=0.8)
    assert result["done"] == 3
    assert result["errors"] == {"closed while idle": 3}


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_chunked_interim_and_split_responses(serve, step):
    def answer(connection, request):
        response = (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        response += b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\n"
        for at in range(0, len(response), step):
            connection.sendall(response[at : at + step])  # a record each
        return keeps(request)

    result = run(serve(answer), "requests", count=8)
    assert result["errors"] == {}
    assert result["done"] == 8
    assert result["body_bytes"] == 8 * len("hello world")


def test_a_large_body_through_split_records(serve):
    body = random.Random(1).randbytes(300_000)

    def answer(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return keeps(request)

    result = run(serve(answer), "requests", count=20)
    assert result["errors"] == {}
    assert result["body_bytes"] == 20 * len(body)


def test_a_body_that_ends_with_the_connection(serve):
    def answer(connection, request):
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        return False

    result = run(serve(answer), count=5)
    assert result["errors"] == {}
    assert result["body_bytes"] == 5 * len("until the end")


def cut(connection, request):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    return False


def refuse(connection, request):
    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    return keeps(request)


def babble(connection, request):
    connection.sendall(b"220 mail.example ESMTP\r\n\r\n")
    return False


def overshoot(connection, request):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab")
    return True


def silent(connection, request):
    time.sleep(3)
    return False


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (cut, "closed before the end of the response"),
        (refuse, "status 503"),
        (babble, "http: malformed response head"),
        (overshoot, "data that no request asked for"),
        (silent, "timeout before the end of the response"),
    ],
)
@pytest.mark.parametrize("mode", ["handshake", "requests"])
def test_errors_by_kind(serve, answer, error, mode):
    result = run(serve(answer), mode, count=50, timeout=0.5, max_errors=4)
    assert result["done"] == 0
    assert set(result["errors"]) == {error}
    assert result["errors"][error] >= 4


def test_a_server_without_tls13_is_an_error(serve):
    result = run(serve(well, maximum=ssl.TLSVersion.TLSv1_2), count=3, max_errors=3)
    assert result["done"] == 0
    assert list(result["errors"]) == ["tls: peer's alert: protocol_version"]


def test_a_refused_connection_is_an_error_and_no_tight_loop():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    start = time.monotonic()
    result = run(None, port=port, count=3, max_errors=20)
    assert result["errors"] == {"connect: ECONNREFUSED": 20}
    assert time.monotonic() - start >= 4 * 0.02


def test_failures_do_not_count_as_done(serve):
    """Every third answer is bad: the run still ends with the wanted number of good ones."""
    asked = iter(range(10_000))

    def moody(connection, request):
        return refuse(connection, request) if next(asked) % 3 == 0 else well(connection, request)

    result = run(serve(moody), count=20, max_errors=1000)
    assert result["done"] == result["latency_us"]["count"] == 20
    assert set(result["errors"]) == {"status 503"}


def test_a_slow_writer_sends_a_byte_at_a_time(serve):
    server = serve(well)
    result = run(server, "slow-write", count=3, concurrency=3, interval=0.02, timeout=20)
    assert result["errors"] == {}
    assert result["done"] == server.connections == 3
    bytes_sent = len(build_request("https://localhost/x", close=True))
    assert result["latency_us"]["p50"] > bytes_sent * 0.02e6 * 0.8


def test_a_slow_reader_takes_a_little_at_a_time(serve):
    body = bytes(20_000)

    def answer(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return False

    result = run(serve(answer), "slow-read", count=3, concurrency=3, interval=0.03)
    assert result["errors"] == {}
    assert result["body_bytes"] == 3 * len(body)
    assert result["latency_us"]["p50"] > len(body) / 1024 * 0.03e6 * 0.8


def test_a_slow_client_that_is_cut_off_tells_when(serve):
    class Impatient(Server):
        def serve(self, raw):
            with raw, contextlib.suppress(OSError):
                connection = self.context.wrap_socket(raw, server_side=True)
                time.sleep(0.4)
                connection.unwrap()

    server = Impatient(well)
    try:
        result = run(server, "slow-write", count=2, concurrency=2, interval=0.05, max_errors=2)
    finally:
        server.close()
    (error,) = result["errors"]
    assert error == "closed before the end of the response"
    assert result["errors"][error] >= 2  # a third may end in the same turn
    assert 300_000 < result["failed_us"]["p50"] < 3_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "fast"},
        {"count": 0},
        {"concurrency": 0},
        {"timeout": 0},
        {"interval": 0},
        {"port": 70000},
        {"mode": "idle", "count": 0, "seconds": 1},
        {"mode": "idle", "count": 1, "rate": 5},
        {"mode": "requests", "rate": -1},
        {"bare": True},
        {"mode": "idle", "h2": True},
        {"configs": []},
        {"requests": [b""]},
        {"requests": []},
    ],
)
def test_wrong_arguments(wrong):
    arguments = {"port": 443, "mode": "handshake", "count": 1} | wrong
    with pytest.raises(ValueError):
        Generator("127.0.0.1", arguments.pop("port"), ClientConfig(), b"GET / HTTP/1.1\r\n\r\n", **arguments)


def test_an_address_is_numeric():
    with pytest.raises(ValueError, match="no IP address"):
        Generator("localhost", 443, ClientConfig(), b"x", count=1)


def test_the_command(serve):
    server = serve(well)
    url = f"https://localhost:{server.port}/"
    command = [sys.executable, "-m", "bench", "load", url, "--address", "127.0.0.1", "-n", "10"]
    ran = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["done"] == 10
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.startswith("10 handshakes with a request in ")


def test_the_command_ends_on_sigterm_with_its_report(serve):
    server = serve(well)
    url = f"https://localhost:{server.port}/"
    command = [sys.executable, "-m", "bench", "load", url, "--address", "127.0.0.1", "--json", "-n", "3"]
    command += ["--mode", "idle", "--seconds", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline()) == {"held": 3}
        process.send_signal(signal.SIGTERM)
        result = json.loads(process.stdout.readline())
    assert result["done"] == 3
    assert process.returncode == 0


def test_build_request():
    assert build_request("https://u:p@example.com:8443/a?b=c", ("X-Y: z",), close=True) == (
        b"GET /a?b=c HTTP/1.1\r\nHost: example.com:8443\r\nUser-Agent: edge-bench\r\nAccept: */*\r\n"
        b"X-Y: z\r\nConnection: close\r\n\r\n"
    )
    for url, headers in (("https://a/b c", ()), ("https://a/", ("X: \r\nY: z",)), ("https://a/ü", ())):
        with pytest.raises(click.UsageError):
            build_request(url, headers)


def test_report_names_errors_and_percentiles(serve):
    result = run(serve(refuse), count=2, max_errors=2)
    words = "\n".join(report(result, "handshake"))
    assert "error: status 503: 2" in words
    assert "99.9%" in words


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=200), st.floats(0.1, 100))
@settings(max_examples=60, deadline=None)
def test_percentiles_are_within_the_precision(values, percent):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    rank = max(1, min(len(values), int(percent / 100 * len(values) + 0.5)))
    exact = sorted(values)[rank - 1]
    assert abs(histogram.percentile(percent) - exact) <= exact / 64 + 0.5
    assert histogram.percentile(100) == histogram.max == max(values)
    assert histogram.mean() == pytest.approx(sum(values) / len(values))


def test_an_empty_histogram():
    assert Histogram().summary() == {"count": 0, "mean": 0.0, "p50": 0, "p90": 0, "p99": 0, "p99_9": 0, "max": 0}


def test_a_duration_beyond_the_range_counts_as_the_largest():
    histogram = Histogram()
    histogram.add(2**40)
    assert histogram.percentile(50) == 2**40 == histogram.max
