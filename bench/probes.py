"""What is measured of each proxy: a row in PROBES, and the function that takes one reading.

Clients offer one cipher suite and one group, so every peer does the same arithmetic. They and the backend run
on one CPU, the proxy on another.
"""

import contextlib
import importlib.util
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers import BODIES, ROOT, Server
from bench.processes import BenchError, Process, busy_seconds, cpu_seconds, memory_kib, wait_until

SUITE = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"
PATIENCE = 60.0  # seconds beyond its planned time that a client may take
BULK = "10m"


@dataclass(frozen=True)
class Load:
    """How the clients are run."""

    cpu: int
    directory: Path
    seconds: float
    handshakes: str  # the client that makes them: "edge" (bench load) or "openssl" (s_time)
    idle: int  # connections that are held
    idle_h2: int  # likewise, of HTTP/2
    rate: float = 0.0  # requests per second of the latency probe; 0 until it is settled

    def run(self, *command: str) -> Process:
        """A client on the load's CPU; OpenSSL, wherever it is in, offers SUITE and GROUP alone."""
        configuration = self.directory / "client.cnf"
        if not configuration.exists():
            configuration.write_text(
                "openssl_conf = top\n[top]\nssl_conf = ssl\n[ssl]\nsystem_default = offer\n"
                f"[offer]\nGroups = {GROUP}\nCiphersuites = {SUITE}\n"
            )
        log = self.directory / f"client-{time.monotonic_ns()}.log"
        environment = {"OPENSSL_CONF": str(configuration)}
        return Process(command, cpu=self.cpu, log=log, environment=environment, directory=ROOT)

    def finish(self, client: Process, seconds: float) -> str:
        """Its output, once it has ended well."""
        with client:
            status = client.wait(seconds + PATIENCE)
            if status:
                raise BenchError(f"the client ended with status {status}: {client.tail()}")
            return client.output()


@dataclass(frozen=True)
class Reading:
    value: float  # in the probe's unit
    count: int  # of what was done in all
    per_second: float | None = None
    foreign: float = 0.0  # share of the proxy's CPU that others used meanwhile, 0..1


@dataclass(frozen=True)
class Probe:
    name: str
    title: str
    unit: str
    more_is_better: bool
    take: Callable[[Server, Load], Reading]
    fresh: bool = False  # wants a server that has served nothing yet


@dataclass
class Meter:
    """CPU seconds of a server over a span of time."""

    cpu: float = 0.0
    seconds: float = 0.0
    foreign: float = 0.0


@contextlib.contextmanager
def metering(server: Server) -> Iterator[Meter]:
    meter = Meter()
    cpu, busy, start = cpu_seconds(server.pid), busy_seconds(server.cpu), time.monotonic()
    yield meter
    meter.cpu = cpu_seconds(server.pid) - cpu
    meter.seconds = time.monotonic() - start
    meter.foreign = max(0.0, busy_seconds(server.cpu) - busy - meter.cpu) / meter.seconds
    if server.process is None or not server.process.running():
        raise BenchError("died under the load")


def full_handshake(server: Server, load: Load) -> Reading:
    """A new connection, a full handshake, one GET of 1 KiB, close."""
    return handshakes(server, load, resume=False)


def resumed_handshake(server: Server, load: Load) -> Reading:
    """The same, resumed by a ticket (TLS 1.3: with a key exchange) but for the first few."""
    return handshakes(server, load, resume=True)


def handshakes(server: Server, load: Load, resume: bool) -> Reading:
    make = generated_handshakes if load.handshakes == "edge" else s_time_handshakes
    with metering(server) as meter:
        count = make(server, load, resume)
    return Reading(meter.cpu / count * 1e6, count, count / meter.seconds, meter.foreign)


def generated_handshakes(server: Server, load: Load, resume: bool = False) -> int:
    url = f"https://localhost:{server.port}/1k"
    command = [sys.executable, "-m", "bench", "load", url, "--address", "127.0.0.1", "--json"]
    command += ["--mode", "handshake", "--seconds", str(load.seconds), "--concurrency", "16"]
    command += ["--resume"] if resume else []
    result = json.loads(load.finish(load.run(*command), load.seconds))
    if result["errors"]:
        raise BenchError(f"handshakes failed: {result['errors']}")
    if resume and result["resumed"] < 0.9 * result["handshakes"]:
        raise BenchError(f"only {result['resumed']} of {result['handshakes']} handshakes were resumed")
    return int(result["done"])


def s_time_handshakes(server: Server, load: Load, resume: bool = False, clients: int = 4) -> int:
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{server.port}", "-www", "/1k", "-tls1_3"]
    command += ["-reuse" if resume else "-new"]
    command += ["-time", str(max(1, round(load.seconds)))]
    count = 0
    with contextlib.ExitStack() as running:
        for client in [running.enter_context(load.run(*command)) for _ in range(clients)]:
            output = load.finish(client, load.seconds)
            done = re.search(r"^(\d+) connections in \d+ real seconds, (\d+) bytes read", output, re.M)
            if not done or int(done[2]) < BODIES["1k"]:
                raise BenchError(f"s_time got no responses: {client.tail()}")
            count += int(done[1])
    return count


def proxied_h1(server: Server, load: Load) -> Reading:
    """CPU microseconds per request of 1 KiB on 64 kept HTTP/1.1 connections."""
    cpu, count, rate, foreign = h2load(server, load, ["--h1", "-c", "64"], "1k", warm_up=64 * 40)
    return Reading(cpu / count * 1e6, count, rate, foreign)


def proxied_h2(server: Server, load: Load) -> Reading:
    """CPU microseconds per request of 1 KiB in 16 streams each of 16 kept HTTP/2 connections."""
    cpu, count, rate, foreign = h2load(server, load, ["-c", "16", "-m", "16"], "1k", warm_up=16 * 160)
    return Reading(cpu / count * 1e6, count, rate, foreign)


def bulk(server: Server, load: Load) -> Reading:
    """Gigabytes of response body per CPU second, in bodies of 10 MiB on 4 connections."""
    cpu, count, rate, foreign = h2load(server, load, ["--h1", "-c", "4"], BULK, warm_up=16)
    return Reading(count * BODIES[BULK] / cpu / 1e9, count, rate, foreign)


def h2load(server: Server, load: Load, options: list[str], body: str, warm_up: int) -> tuple[float, int, float, float]:
    """(CPU seconds, requests, requests per second, foreign share) of a long run less a short one.

    Both runs open the same number of connections, so what these cost cancels out. The short run also tells
    how many requests fill the wanted time.
    """
    url = f"https://127.0.0.1:{server.port}/{body}"
    client = ["h2load", *options, "--tls13-ciphers", SUITE, "--groups", GROUP]

    def requests(count: int) -> Meter:
        with metering(server) as meter:
            output = load.finish(load.run(*client, "-n", str(count), url), load.seconds)
        succeeded = re.search(r"requests: .* (\d+) succeeded", output)
        data = re.search(r"\((\d+)\) data", output)
        if not succeeded or int(succeeded[1]) != count or not data or int(data[1]) != count * BODIES[body]:
            summary = re.findall(r"^(?:requests|status codes|traffic): .*", output, re.M)
            raise BenchError(f"not every request was answered in full: {' | '.join(summary) or output[-200:]}")
        return meter

    short = requests(warm_up)
    count = max(2 * warm_up, round(load.seconds * warm_up / short.seconds))
    long = requests(count)
    return long.cpu - short.cpu, count - warm_up, count / long.seconds, long.foreign


LATENCY_CONNECTIONS = 64


def settle_rate(servers: Iterable[Server], load: Load) -> Load:
    """The load with half of the top rate of its first server for the latency probe: all peers get the same."""
    for server in servers:
        top = max(proxied_h1(server, load).per_second or 0.0 for _ in range(2))
        return replace(load, rate=top / 2)
    return load


def latency(server: Server, load: Load) -> Reading:
    """The 99th percentile of a request's time, in microseconds; requests begin by the clock, evenly."""
    if not load.rate:
        load = settle_rate([server], load)
    url = f"https://localhost:{server.port}/1k"
    command = [sys.executable, "-m", "bench", "load", url, "--address", "127.0.0.1", "--json", "--mode", "requests"]
    command += ["--concurrency", str(LATENCY_CONNECTIONS), "--rate", f"{load.rate:.1f}"]
    command += ["--seconds", str(load.seconds)]
    with metering(server) as meter:
        result = json.loads(load.finish(load.run(*command), load.seconds))
    if result["errors"]:
        raise BenchError(f"requests failed: {result['errors']}")
    if result["per_second"] < 0.95 * load.rate:
        raise BenchError(f"{result['per_second']:,.0f} requests a second were answered, {load.rate:,.0f} were due")
    return Reading(result["latency_us"]["p99"], result["done"], result["per_second"], meter.foreign)


def idle_memory(server: Server, load: Load) -> Reading:
    """KiB (PSS) that each kept connection adds after one request."""
    hold = held_by_generator if load.handshakes == "edge" else held_by_python
    return memory_of_held(server, load.idle, lambda: hold(server, load))


def idle_memory_h2(server: Server, load: Load) -> Reading:
    """The same of HTTP/2."""
    return memory_of_held(server, load.idle_h2, lambda: held_h2(server, load))


def memory_of_held(
    server: Server, count: int, hold: Callable[[], contextlib.AbstractContextManager[None]]
) -> Reading:
    trust = ssl.create_default_context(cafile=str(server.site.chain))
    exchange_one(trust, server.port).close()  # what is allocated once, for the first connection, is not counted
    time.sleep(0.5)
    before = memory_kib(server.pid)
    with metering(server) as meter, hold():
        time.sleep(1.0)
        after = memory_kib(server.pid)
    return Reading((after - before) / count, count, foreign=meter.foreign)


@contextlib.contextmanager
def held_by_generator(server: Server, load: Load) -> Iterator[None]:
    url = f"https://localhost:{server.port}/1k"
    command = [sys.executable, "-m", "bench", "load", url, "--address", "127.0.0.1", "--json", "--mode", "idle"]
    command += ["--count", str(load.idle), "--seconds", str(PATIENCE), "--max-errors", "1"]
    with load.run(*command) as client:
        wait_until(lambda: '"held"' in client.output() or not client.running(), PATIENCE)
        if '"held"' not in client.output():
            raise BenchError(f"the connections were not made: {client.tail()}")
        yield
        if not client.running():
            raise BenchError(f"connections were not kept: {client.tail()}")


@contextlib.contextmanager
def held_by_python(server: Server, load: Load) -> Iterator[None]:
    offer = ssl.create_default_context(cafile=str(server.site.chain))
    offer.minimum_version = ssl.TLSVersion.TLSv1_3
    with contextlib.ExitStack() as held:
        for _ in range(load.idle):
            held.enter_context(exchange_one(offer, server.port))
        yield


@contextlib.contextmanager
def held_h2(server: Server, load: Load) -> Iterator[None]:
    offer = ssl.create_default_context(cafile=str(server.site.chain))
    offer.minimum_version = ssl.TLSVersion.TLSv1_3
    offer.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as held:
        for _ in range(load.idle_h2):
            held.enter_context(exchange_one_h2(offer, server.port))
        yield


# RFC 9113: the preface, empty SETTINGS, and HEADERS of stream 1 that end it: GET https://localhost/1k (RFC 7541).
H2_FIELDS = b"\x82\x87\x04\x03/1k\x01\x09localhost"
H2_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0" + bytes(4)
H2_REQUEST += len(H2_FIELDS).to_bytes(3, "big") + b"\1\5\0\0\0\1" + H2_FIELDS
H2_SETTINGS_ACK = bytes(3) + b"\4\1" + bytes(4)
H2_DATA, H2_END_STREAM = 0, 1


def exchange_one_h2(offer: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    """A connection of HTTP/2 that has had one response of 1 KiB and stays open."""
    connection = offer.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
    if connection.selected_alpn_protocol() != "h2":
        connection.close()
        raise BenchError("does not speak HTTP/2")
    connection.sendall(H2_REQUEST + H2_SETTINGS_ACK)
    received, body = b"", 0
    while True:
        while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
            kind, flags = received[3], received[4]
            received = received[9 + size :]
            body += size if kind == H2_DATA else 0
            if kind == H2_DATA and flags & H2_END_STREAM:
                if body != BODIES["1k"]:
                    raise BenchError(f"a response had {body} bytes of content")
                return connection
        more = connection.recv(16384)
        if not more:
            raise BenchError("a connection was closed before its response")
        received += more


def exchange_one(offer: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    """A connection that has had one response of 1 KiB and stays open."""
    connection = offer.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
    connection.sendall(b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while len(received) - received.find(b"\r\n\r\n") - 4 < BODIES["1k"]:
        more = connection.recv(16384)
        if not more:
            raise BenchError("a connection was closed before its response")
        received += more
    return connection


PROBES = {
    probe.name: probe
    for probe in (
        Probe("handshake", "Full handshake with one request", "CPU µs", False, full_handshake),
        Probe("resume", "Resumed handshake with one request", "CPU µs", False, resumed_handshake),
        Probe("h1", "HTTP/1.1 request, proxied, 1 KiB", "CPU µs", False, proxied_h1),
        Probe("h2", "HTTP/2 request, proxied, 1 KiB", "CPU µs", False, proxied_h2),
        Probe("latency", "99th percentile at half of nginx's top rate", "µs", False, latency),
        Probe("bulk", "Download of 10 MiB bodies", "GB per CPU second", True, bulk),
        Probe("idle", "Memory of an idle connection", "KiB (PSS)", False, idle_memory, fresh=True),
        Probe("idle_h2", "Memory of an idle HTTP/2 connection", "KiB (PSS)", False, idle_memory_h2, fresh=True),
    )
}


def load_generator_built() -> bool:
    return importlib.util.find_spec("bench.load") is not None


def negotiated(server: Server, patience: float = 10) -> dict[str, str]:
    """{"version", "cipher", "group"} of a handshake after which a request was answered with 200."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost"]
    command += ["-alpn", "http/1.1", "-ign_eof", "-tls1_3", "-groups", GROUP, "-ciphersuites", SUITE]
    request = "GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        ran = subprocess.run(command, input=request.encode(), capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"did not answer a request in {patience:.0f} s") from None
    output = ran.stdout.decode("latin-1")
    if not re.search(r"^HTTP/1\.1 200\b", output, re.M):
        last = (ran.stderr.decode("latin-1").strip().splitlines() or ["no response"])[-1]
        raise BenchError(f"does not answer a request with 200: {last}")
    session = re.search(r"New, (\S+), Cipher is (\S+)", output)
    group = re.search(r"(?:Server|Peer) Temp Key: ([\w-]+)|TLS1\.3 group: (\S+)", output)
    return {
        "version": session[1] if session else "unknown",
        "cipher": session[2] if session else "unknown",
        "group": (group[1] or group[2]).upper() if group else "unknown",
    }
