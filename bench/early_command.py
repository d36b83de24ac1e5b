"""`python -m bench early`: what a connection with early data costs, and waits, by whom its register is kept.

Two servers with the same tickets in one run, turn about: one that keeps the register itself, and one of a fleet whose
register is in a Redis on this host. Each connection resumes, has its request in early data, and ends with the response.
"""

import contextlib
import json
import os
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from cext.tls.config import ClientConfig
from cext.tls.engine import ACCEPTED, DATA, FAILED, Engine

from bench.peers import Site, make_site, start_backend
from bench.processes import BenchError, Process, allow_files, cpu_seconds, free_port, wait_listening, wait_until
from bench.serving import OTHER_CPU, Server, put_first, serving

REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"
KINDS = ("host", "fleet")
SECONDS = 20


@click.command()
@click.option("-n", "--connections", type=click.IntRange(100), default=6000, show_default=True, help="Of each server.")
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="That they are divided into.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def early(connections: int, rounds: int, as_json: bool) -> None:
    """Compare early data with a register of the host's own and with one that is shared by Redis.

    The worker has a CPU of its own; Redis, the backend and the client share the other. Connections come one after the
    other, and then sixteen at once. As root, the worker and Redis go before whatever else runs.

    \b
    Examples:
      python -m bench early
      python -m bench early -n 20000 --rounds 10
    """
    allow_files()
    with tempfile.TemporaryDirectory(prefix="edge-early-") as directory:
        result = measure(Path(directory), connections // rounds, rounds)
    click.echo(json.dumps(result) if as_json else "\n".join(report(result)))


def measure(directory: Path, each: int, rounds: int) -> dict[str, Any]:
    site = make_site(directory, 20_000)
    with contextlib.ExitStack() as stack:
        stack.enter_context(start_backend(site, OTHER_CPU))
        redis = stack.enter_context(register(site))
        servers = {kind: stack.enter_context(taking(site, kind, redis)) for kind in KINDS}
        found: dict[str, Any] = {}
        for together in (1, 16):
            runs = {kind: Run(servers[kind], together) for kind in KINDS}
            for _ in range(rounds):
                for run in runs.values():
                    run.go(each)
            found[f"{together} at once"] = {kind: run.result() for kind, run in runs.items()}
    return found


# Processes.


@contextlib.contextmanager
def register(site: Site) -> Iterator[int]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(site.directory)]
    with Process(command, cpu=OTHER_CPU, log=site.directory / "redis.log") as process:
        wait_listening(process, port)
        put_first(process)
        yield port


@contextlib.contextmanager
def taking(site: Site, kind: str, redis: int) -> Iterator[Server]:
    """A server that takes early data."""
    secret = site.directory / f"{kind}.secret"
    secret.write_bytes(os.urandom(48))
    tables = f"""
[tls]
tickets = {{ secret_file = "{secret}" }}
early_data = {{ rate = 100000, window = "2s" }}
"""
    if kind == "fleet":
        tables += f'[fleet]\nsecret_files = ["{secret}"]\nredis = ["127.0.0.1:{redis}"]\nshare = ["early-data"]\n'
    admin = f'admin = "unix:{site.directory / kind}.sock"'
    with serving(site, kind, server=admin, route='early_data = "forward"', tables=tables) as server:
        if not wait_until(lambda: Client(server.port, session_of(server.port)).taken(), SECONDS):
            raise BenchError(f"no early data is taken:\n{server.process.output()}")
        yield server


# Load.


class Client:
    """A connection; with a session, the request is early data."""

    def __init__(self, port: int, session: Any = None) -> None:
        config = ClientConfig(server_name="localhost", alpn=[b"http/1.1"], early_data=session is not None)
        self.engine = Engine(config, session)
        self.plain = b""
        self.first = self.last = 0.0
        if session is not None:
            self.engine.send(REQUEST)
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self) -> None:
        self.began = time.perf_counter()
        self.sock.send(self.engine.take_output())

    def take(self) -> bool:
        """One receive -> whether the response is whole."""
        data = self.sock.recv(65536)
        self.first = self.first or time.perf_counter()
        for event, payload in self.engine.receive_bytes(data):
            if event == DATA:
                self.plain += payload
            if event == FAILED:
                raise BenchError(str(self.engine.failure))
        if not data:
            raise BenchError("the connection was closed")
        _, end, body = self.plain.partition(b"\r\n\r\n")
        return bool(end) and len(body) >= 1024

    def taken(self) -> bool:
        """By itself, to its end."""
        with self.sock:
            self.begin()
            while not self.engine.established:
                self.take()
            return bool(self.engine.early_data_state == ACCEPTED)


def session_of(port: int) -> Any:
    client = Client(port)
    with client.sock:
        client.begin()
        while client.engine.session is None:
            client.take()
            client.sock.send(client.engine.take_output())
    return client.engine.session


class Run:
    """Connections to one server, so many at once."""

    def __init__(self, server: Server, together: int) -> None:
        self.process, self.port, self.together = server.process, server.port, together
        self.waits: list[float] = []
        self.cpu: list[float] = []

    def go(self, count: int) -> None:
        session = session_of(self.port)
        before = cpu_seconds(self.process.pid)
        done = 0
        while done < count:
            clients = [Client(self.port, session) for _ in range(self.together)]
            for client in clients:
                client.begin()
            self.finish(clients)
            done += len(clients)
        self.cpu.append((cpu_seconds(self.process.pid) - before) / done)

    def finish(self, clients: list[Client]) -> None:
        with selectors.DefaultSelector() as selector:
            for client in clients:
                selector.register(client.sock, selectors.EVENT_READ, client)
            waiting = len(clients)
            while waiting:
                ready = selector.select(SECONDS)
                if not ready:
                    raise BenchError("no answer")
                for key, _ in ready:
                    if key.data.take():
                        selector.unregister(key.fileobj)
                        waiting -= 1
        for client in clients:
            client.sock.close()
            self.waits.append(client.first - client.began)
            if client.engine.early_data_state != ACCEPTED:
                raise BenchError("early data was not taken")

    def result(self) -> dict[str, float]:
        waits = sorted(self.waits)
        return {
            "cpu_us": round(statistics.median(self.cpu) * 1e6, 1),
            "p50_us": round(waits[len(waits) // 2] * 1e6),
            "p99_us": round(waits[len(waits) * 99 // 100] * 1e6),
        }


def report(result: dict[str, Any]) -> list[str]:
    lines = ["per connection with early data: the server's CPU, and until its first bytes; in µs"]
    for title, kinds in result.items():
        lines.append(f"  {title}:")
        for kind, found in kinds.items():
            name = "register of the host" if kind == "host" else "register of the fleet"
            lines.append(f"    {name}: CPU {found['cpu_us']}, 50% {found['p50_us']:,}, 99% {found['p99_us']:,}")
    return lines
