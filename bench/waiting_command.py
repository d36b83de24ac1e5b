"""`python -m bench waiting`: what handshakes that wait for a key server cost the connections that are there already.

A worker whose certificate's key is on `edge keyserver`, a relay before that adds to its answers' way, a steady rate of
requests on kept connections, and then the same with hundreds of handshakes at a time that wait for signatures.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trustme

from bench.peers import Site, make_site, start_backend
from bench.processes import BenchError, Process, allow_files, cpu_seconds, free_port, wait_listening
from bench.serving import OTHER_CPU, Server, put_first, serving

KEPT = 32  # connections that the steady requests go over
SETTLE_SECONDS = 1.5
PATIENT = 'timeouts = { handshake = "30s" }'


@dataclass(frozen=True)
class Load:
    site: Site
    rate: int
    seconds: float


@click.command()
@click.option("--latency", type=click.IntRange(0, 5000), default=200, show_default=True, help="Of a signature, ms.")
@click.option("--in-flight", type=click.IntRange(1), default=500, show_default=True, help="Handshakes at a time.")
@click.option("--rate", type=click.IntRange(1), default=1000, show_default=True, help="Steady requests per second.")
@click.option("-t", "--seconds", type=click.FloatRange(1), default=10.0, show_default=True, help="For each part.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def waiting(latency: int, in_flight: int, rate: int, seconds: float, as_json: bool) -> None:
    """Measure requests on kept connections while handshakes wait for a remote key.

    The worker has a CPU of its own; key server, relay, backend and the two load generators share the other. Three
    parts: the requests alone; with the handshakes, each of which waits --latency; and, to tell what waiting costs from
    what handshakes cost, with as many handshakes a second whose key is at hand. As root, worker, backend and the
    generator that measures go before whatever else runs.

    \b
    Examples:
      python -m bench waiting
      python -m bench waiting --latency 50 --in-flight 100 --rate 4000
    """
    allow_files()
    with tempfile.TemporaryDirectory(prefix="edge-waiting-") as directory:
        result = measure(Path(directory), latency, in_flight, rate, seconds)
    click.echo(json.dumps(result) if as_json else "\n".join(report(result)))


def measure(directory: Path, latency: int, in_flight: int, rate: int, seconds: float) -> dict[str, Any]:
    site = make_site(directory, 20_000)
    with (
        start_backend(site, OTHER_CPU) as backend,
        key_server(site) as server_port,
        relay(site, server_port, latency) as port,
    ):
        put_first(backend)
        load = Load(site, rate, seconds)
        with serving(site, "remote", key=remote_key(site, port), listener=PATIENT) as edge:
            alone = steady(load, edge)
            # By the clock: clients do not come in step, as those of a closed loop do who have all waited equally long.
            arriving = round(in_flight / (latency / 1000)) if latency else 1000
            remote = beside(load, edge, ["-c", str(2 * in_flight), "--rate", str(arriving)])
        with serving(site, "local", listener=PATIENT) as edge:
            local = beside(load, edge, ["-c", str(2 * in_flight), "--rate", str(remote["handshakes_per_second"])])
    asked = {"latency_ms": latency, "in_flight": in_flight, "rate": rate}
    return {**asked, "alone": alone, "remote": remote, "local": local}


# Processes.


@contextlib.contextmanager
def key_server(site: Site) -> Iterator[int]:
    """`edge keyserver` with the site's key, and an authority of its own for either side's certificate."""
    keys = site.directory / "keys"
    keys.mkdir()
    (keys / "site.pem").write_bytes(site.key.read_bytes())
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(site.directory / "keys-ca.pem"))
    for name in ("127.0.0.1", "edge.example"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(str(site.directory / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(site.directory / f"{name}.key"))
    port = free_port()
    command = [sys.executable, "-m", "edge", "keyserver", "--listen", f"127.0.0.1:{port}", "--keys", str(keys)]
    command += ["--chain", str(site.directory / "127.0.0.1.pem"), "--key", str(site.directory / "127.0.0.1.key")]
    command += ["--ca", str(site.directory / "keys-ca.pem")]
    with Process(command, cpu=OTHER_CPU, log=site.directory / "keyserver.log") as process:
        wait_listening(process, port)
        yield port


@contextlib.contextmanager
def relay(site: Site, target: int, latency: int) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "bench.waiting_command", str(port), str(target), str(latency)]
    with Process(command, cpu=OTHER_CPU, log=site.directory / "relay.log") as process:
        wait_listening(process, port)
        yield port


def remote_key(site: Site, port: int) -> str:
    us = f'chain = "{site.directory}/edge.example.pem", key = "{site.directory}/edge.example.key"'
    servers = f'servers = ["127.0.0.1:{port}"], ca = "{site.directory}/keys-ca.pem"'
    return f'{{ signer = "keyless", {servers}, {us}, timeout = "10s", pending = 10000 }}'


# Load.


def generator(load: Load, port: int, name: str, options: list[str]) -> Process:
    command = [sys.executable, "-m", "bench", "load", f"https://127.0.0.1:{port}/1k", "--json", *options]
    return Process(command, cpu=OTHER_CPU, log=load.site.directory / f"{name}.json")


def finish(process: Process, load: Load) -> dict[str, Any]:
    process.wait(load.seconds + 60)
    found: dict[str, Any] = json.loads(process.output().strip().splitlines()[-1])
    if found["errors"]:
        raise BenchError(f"errors: {found['errors']}")
    return found


def steady(load: Load, edge: Server) -> dict[str, Any]:
    options = ["--mode", "requests", "-c", str(KEPT), "--rate", str(load.rate), "-t", str(load.seconds)]
    with generator(load, edge.port, "steady", options) as process:
        put_first(process)
        found = finish(process, load)
    return {"requests": found["done"], **{q: found["latency_us"][q] for q in ("p50", "p99", "p99_9", "max")}}


def beside(load: Load, edge: Server, handshakes: list[str]) -> dict[str, Any]:
    """The steady requests within a load of handshakes."""
    options = ["--mode", "handshake", *handshakes, "-t", str(load.seconds + 2 * SETTLE_SECONDS), "--timeout", "30"]
    with generator(load, edge.port, "handshakes", options) as loading:
        time.sleep(SETTLE_SECONDS)
        busy, begun = cpu_seconds(edge.process.pid), time.monotonic()
        measured = steady(load, edge)
        busy, took = cpu_seconds(edge.process.pid) - busy, time.monotonic() - begun
        found = finish(loading, load)
    return {
        **measured,
        "handshakes_per_second": round(found["per_second"]),
        "handshake_p50_us": found["latency_us"]["p50"],
        "worker_busy": round(busy / took, 3),
    }


def report(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['rate']:,} requests per second on {KEPT} kept connections; latencies in µs"]
    for name, title in (
        ("alone", "alone"),
        ("remote", f"beside {result['in_flight']} handshakes at a time that wait {result['latency_ms']} ms for a key"),
        ("local", "beside as many handshakes a second, the key at hand"),
    ):
        found = result[name]
        lines.append(f"  {title}:")
        lines.append(f"    50% {found['p50']:,}, 99% {found['p99']:,}, 99.9% {found['p99_9']:,}, max {found['max']:,}")
        if "worker_busy" in found:
            lines.append(
                f"    {found['handshakes_per_second']:,} handshakes per second, half of them within "
                f"{found['handshake_p50_us'] / 1000:,.0f} ms; the worker's CPU was busy for {found['worker_busy']:.0%}"
            )
    return lines


# The relay, a process of its own.


async def serve_relay(port: int, target: int, latency: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        try:
            await asyncio.gather(pass_on(reader, far_writer, 0), pass_on(far_reader, writer, latency))
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    """Everything, in order, each part `latency` seconds after it has come."""
    loop = asyncio.get_running_loop()
    while part := await reader.read(65536):
        loop.call_later(latency, writer.write, part)
    loop.call_later(latency, writer.close)


if __name__ == "__main__":
    asyncio.run(serve_relay(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000))
