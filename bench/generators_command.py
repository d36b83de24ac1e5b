"""`python -m bench generators`: our load generator beside openssl s_time, by the CPU time of the clients."""

import contextlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from bench.peers import PEERS, Server, make_site, start_backend
from bench.probes import Load, generated_handshakes, load_generator_built, negotiated, s_time_handshakes
from bench.processes import BenchError, allow_files, stopping_on_signals

CLIENTS: dict[str, Callable[[Server, Load], int]] = {
    "openssl s_time": s_time_handshakes,
    "bench load": generated_handshakes,
}


@dataclass(frozen=True)
class Effort:
    """What a client did in one round."""

    cpu_us: float  # for each handshake with its request, the client's start included
    per_second: float


@click.command()
@click.option("--peer", type=click.Choice(list(PEERS)), default="nginx", show_default=True, help="The server.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=4.0, show_default=True, help="Length of a round.")
@click.option("--server-cpu", type=click.IntRange(0), default=0, show_default=True)
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True)
def generators(peer: str, rounds: int, seconds: float, server_cpu: int, load_cpu: int) -> None:
    """Compare our load generator with openssl s_time (four at a time) on full handshakes with one request.

    Both run on --load-cpu against the same server on --server-cpu, in turn; medians are shown.
    """
    if not load_generator_built():
        raise click.ClickException("the load generator is not built: python setup.py build_ext --inplace")
    os.sched_setaffinity(0, {load_cpu})
    directory = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    load = Load(load_cpu, directory, seconds, "edge", 0)
    efforts: dict[str, list[Effort]] = {name: [] for name in CLIENTS}
    try:
        with stopping_on_signals(), contextlib.ExitStack() as running:
            site = make_site(directory, allow_files())
            running.enter_context(start_backend(site, load_cpu))
            server = Server(PEERS[peer], site, server_cpu)
            running.callback(server.stop)
            server.start()
            negotiated(server)
            for at in range(rounds):
                for name, make in CLIENTS.items():
                    efforts[name].append(one_round(make, server, load))
                    Console(stderr=True).print(f"round {at + 1}: {name}: {efforts[name][-1]}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BenchError as e:
        raise click.ClickException(str(e)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    click.echo("\n".join(effort_table(efforts)))


def one_round(make: Callable[[Server, Load], int], server: Server, load: Load) -> Effort:
    before, start = children_cpu(), time.monotonic()
    count = make(server, load)
    return Effort((children_cpu() - before) / count * 1e6, count / (time.monotonic() - start))


def children_cpu() -> float:
    """CPU seconds of the children that have ended: the clients, while server and backend go on running."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def effort_table(efforts: dict[str, list[Effort]]) -> list[str]:
    """Markdown: medians, and their ratio to the first client's."""
    lines = ["| client | CPU µs per handshake with request | handshakes/s |", "|---|--:|--:|"]
    base: tuple[float, float] | None = None
    for name, rounds in efforts.items():
        cpu = statistics.median(each.cpu_us for each in rounds)
        rate = statistics.median(each.per_second for each in rounds)
        base = base or (cpu, rate)
        lines.append(f"| {name} | {cpu:.0f} ({cpu / base[0]:.2f}) | {rate:,.0f} ({rate / base[1]:.2f}) |")
    return lines
