"""`python -m bench compare`: edge beside nginx, HAProxy, h2o, Caddy and Go's ReverseProxy, in one run."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.peers import PEERS, Server, make_site, peer_version, start_backend
from bench.probes import (
    GROUP,
    PROBES,
    SUITE,
    Load,
    Probe,
    load_generator_built,
    negotiated,
    settle_rate,
)
from bench.processes import BenchError, allow_files, stopping_on_signals
from bench.report import Comparison, as_json, chart, machine_facts, markdown, remarks
from bench.svg import number

EXPECTED = {"version": "TLSv1.3", "cipher": SUITE, "group": GROUP}


class Names(click.ParamType):
    """A comma-separated choice of names, in the order given."""

    name = "names"

    def __init__(self, known: dict[str, object]) -> None:
        self.known = known

    def convert(self, value, param, ctx):
        names = list(dict.fromkeys(value.split(",")))
        for each in names:
            if each not in self.known:
                self.fail(f"{each!r} is none of {', '.join(self.known)}", param, ctx)
        return names


@dataclass(frozen=True)
class Settings:
    only: list[str]
    tests: list[str]
    rounds: int
    seconds: float
    connections: int
    h2_connections: int
    handshakes: str
    proxy_cpu: int
    load_cpu: int
    json_file: Path | None
    svg_file: Path | None
    markdown_file: Path | None
    logs: Path | None

    def as_json(self) -> dict[str, Any]:
        """What shapes the figures, without the files they go to."""
        kept = ("rounds", "seconds", "connections", "h2_connections", "handshakes", "proxy_cpu", "load_cpu")
        return {name: getattr(self, name) for name in kept} | EXPECTED


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--only", type=Names(PEERS), default=",".join(PEERS), show_default=True, help="Peers to measure.")
@click.option("--tests", type=Names(PROBES), default=",".join(PROBES), show_default=True, help="What to measure.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Readings; medians are shown.")
@click.option("--seconds", type=click.FloatRange(0.5), default=3.0, show_default=True, help="Length of a reading.")
@click.option("--connections", type=click.IntRange(10), default=3000, show_default=True, help="Held in the idle test.")
@click.option(
    "--h2-connections",
    type=click.IntRange(10),
    default=10000,
    show_default=True,
    help="Held in the idle test of HTTP/2.",
)
@click.option(
    "--handshakes",
    type=click.Choice(["auto", "edge", "openssl"]),
    default="auto",
    show_default=True,
    help="Who makes them: our load generator, openssl s_time, or the first that is there.",
)
@click.option("--proxy-cpu", type=click.IntRange(0), default=0, show_default=True, help="CPU of the proxies.")
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True, help="CPU of clients and backend.")
@click.option("--json", "json_file", type=PATH, help="Write every reading and the machine's facts.")
@click.option("--svg", "svg_file", type=PATH, help="Draw the chart.")
@click.option("--markdown", "markdown_file", type=PATH, help="Write the table to a file as well.")
@click.option("--logs", type=PATH, help="Keep configurations and logs in this directory.")
def compare(**options: Any) -> None:
    """Compare TLS proxies by the CPU time and memory of their own processes.

    Each proxy terminates TLS 1.3 with one worker on --proxy-cpu, with the same P-256 certificate, X25519 and
    AES-128-GCM, in front of the same nginx backend; clients and backend run on --load-cpu. All are up at once
    and are measured in turn, round after round, in rotating order; medians are shown, with the ratio to nginx.
    CPU time is what the kernel's scheduler charged to the proxy's processes: it holds on a small shared
    machine, where throughput does not.

    A peer that is not installed or fails a test is named and left out. EDGE in the environment names another
    command than this tree's edge. Needs (Debian): nginx-light openssl nghttp2-client, and for the peers
    haproxy h2o caddy golang-go.

    \b
    Examples:
      python -m bench compare --json compare.json --svg compare.svg
      python -m bench compare --only nginx,edge --tests handshake,h1 --rounds 5
    """
    settings = checked(Settings(**options))
    console = Console(stderr=True)
    os.sched_setaffinity(0, {settings.load_cpu})  # our own work must not disturb the proxy
    comparison = Comparison([PROBES[name] for name in settings.tests], settings.only)
    directory = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    try:
        with stopping_on_signals():
            measure(comparison, settings, directory, console)
    except KeyboardInterrupt as e:
        console.print(f"[yellow]stopped ({e}): everything that was started has ended")
        raise SystemExit(130) from None
    except BenchError as e:
        raise click.ClickException(str(e)) from None
    finally:
        if settings.logs is not None:
            not_kept = shutil.ignore_patterns("www", "go", "key.pem", "bundle.pem")
            shutil.copytree(directory, settings.logs, dirs_exist_ok=True, ignore=not_kept)
        shutil.rmtree(directory, ignore_errors=True)
    show(comparison, settings)


def checked(settings: Settings) -> Settings:
    """The settings with "auto" resolved; a usage error when this machine cannot carry them out."""
    available = os.sched_getaffinity(0)
    if settings.proxy_cpu == settings.load_cpu or not {settings.proxy_cpu, settings.load_cpu} <= available:
        raise click.UsageError(f"--proxy-cpu and --load-cpu must be two of {sorted(available)}")
    for program, package in {"openssl": "openssl", "h2load": "nghttp2-client"}.items():
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is needed: apt install {package}")
    if settings.handshakes == "edge" and not load_generator_built():
        raise click.ClickException("the load generator is not built: python setup.py build_ext --inplace")
    if settings.handshakes == "auto":
        return replace(settings, handshakes="edge" if load_generator_built() else "openssl")
    return settings


def show(comparison: Comparison, settings: Settings) -> None:
    facts = machine_facts({name: peer_version(PEERS[name]) for name in comparison.taking_part()})
    table = markdown(comparison)
    click.echo("\n" + table)
    click.echo(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    system = f"{facts['system']}, Linux {facts['kernel']}, OpenSSL {facts['openssl']}"
    click.echo(f"{facts['cpu']}, {facts['cpus']} CPUs, {system}")
    for remark in remarks(comparison):
        click.echo(f"- {remark}")
    if settings.markdown_file is not None:
        settings.markdown_file.write_text(table)
    if settings.json_file is not None:
        found = as_json(comparison, facts, settings.as_json())
        settings.json_file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if settings.svg_file is not None:
        settings.svg_file.write_text(chart(comparison, facts))


def measure(comparison: Comparison, settings: Settings, directory: Path, console: Console) -> None:
    """Fills the comparison; leaves nothing running."""
    site = make_site(directory, allow_files())
    held = settings.connections, settings.h2_connections
    load = Load(settings.load_cpu, directory, settings.seconds, settings.handshakes, *held)
    with contextlib.ExitStack() as running:
        running.enter_context(start_backend(site, load.cpu))
        servers: dict[str, Server] = {}
        for name in comparison.peers:
            server = Server(PEERS[name], site, settings.proxy_cpu)
            running.callback(server.stop)
            try:
                with console.status(f"starting {name}"):
                    server.start()
                    found = negotiated(server)
                if found != EXPECTED:
                    raise BenchError(f"negotiated {found} where {EXPECTED} was expected")
                servers[name] = server
            except BenchError as e:
                server.stop()
                comparison.left_out[name] = str(e)
                console.print(f"[yellow]{name} left out: {e}")
        if "latency" in settings.tests:
            with console.status("looking for the top rate"):
                load = settle_rate(servers.values(), load)
        if servers:
            take_readings(comparison, servers, load, settings.rounds, console)


def take_readings(
    comparison: Comparison, servers: dict[str, Server], load: Load, rounds: int, console: Console
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=len(comparison.probes) * rounds * len(servers))
        for probe, number_of_round, name in plan(comparison.probes, rounds, list(servers)):
            if (probe.name, name) not in comparison.failures:
                progress.update(task, description=f"{probe.name}, round {number_of_round}, {name}")
                take_one(comparison, probe, servers[name], load, progress.console)
            progress.advance(task)


def plan(probes: list[Probe], rounds: int, names: list[str]) -> Iterator[tuple[Probe, int, str]]:
    """Probe by probe, round by round, every peer; each round begins with another peer."""
    for probe in probes:
        for at in range(rounds):
            first = at % len(names)
            for name in names[first:] + names[:first]:
                yield probe, at + 1, name


def take_one(comparison: Comparison, probe: Probe, server: Server, load: Load, console: Console) -> None:
    name = server.peer.name
    try:
        if probe.fresh or server.process is None or not server.process.running():
            server.restart()
        reading = probe.take(server, load)
    except (BenchError, OSError) as e:
        comparison.fail(probe.name, name, str(e))
        console.print(f"[yellow]{probe.name:10} {name:8} failed: {e}")
        return
    comparison.add(probe.name, name, reading)
    rate = f", {reading.per_second:,.0f}/s" if reading.per_second else ""
    console.print(f"{probe.name:10} {name:8} {number(reading.value):>7} {probe.unit} ({reading.count:,} done{rate})")
