"""`python -m bench hooks`: what a policy costs each request, from end to end."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from bench.peers import PEERS, Launch, Peer, Server, Site, make_site, start_backend
from bench.probes import Load, load_generator_built, negotiated, proxied_h1, proxied_h2
from bench.processes import BenchError, allow_files, stopping_on_signals

MODULE: Final = "bench_policies"

POLICIES: Final = '''
class Sync:
    def director(self, request):
        pass


class Reads:
    def director(self, request):
        if request.path == "/upload" and "x-api-key" not in request.headers:
            request.abort()


class Changes:
    def director(self, request):
        request.headers["X-User"] = "alice"


class Async:
    async def director(self, request):
        pass


class Waits:
    async def director(self, request):
        await asyncio.sleep(0)


class Responses:
    def response(self, request, response):
        response.headers["X-Served-By"] = "edge"
'''

WAYS: Final = {
    "no hooks": None,
    "a director that does nothing": "Sync",
    "one that reads the path and looks for a header": "Reads",
    "one that sets a header": "Changes",
    "an async one that awaits nothing": "Async",
    "an async one that waits for a turn of the loop": "Waits",
    "a response hook that sets a header": "Responses",
}


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Readings; the lowest is shown.")
@click.option("--seconds", type=click.FloatRange(0.5), default=2.0, show_default=True, help="Length of a reading.")
@click.option("--protocol", type=click.Choice(["h1", "h2"]), default="h1", show_default=True)
@click.option("--proxy-cpu", type=click.IntRange(0), default=0, show_default=True, help="CPU of the worker.")
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True, help="CPU of clients and backend.")
def hooks(**options: Any) -> None:
    """Measure the CPU time of a worker per proxied request of 1 KiB, with policies of several kinds.

    All are up at once and measured in turn, round after round. Needs (Debian): nginx-light nghttp2-client.
    """
    os.sched_setaffinity(0, {options["load_cpu"]})
    directory = Path(tempfile.mkdtemp(prefix="edge-hooks-"))
    try:
        with stopping_on_signals():
            found = measure(directory, {way: setting(policy) for way, policy in WAYS.items()}, **options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BenchError as e:
        raise click.ClickException(str(e)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    click.echo("\n".join(table(found)))


def setting(policy: str | None) -> str:
    return f'hooks = "{MODULE}:{policy}"\n' if policy else ""


def measure(
    directory: Path, ways: dict[str, str], *, rounds: int, seconds: float, protocol: str, proxy_cpu: int, load_cpu: int
) -> dict[str, list[float]]:
    """Microseconds of CPU per request: every reading of every way, each with lines of its own under [server]."""
    site = make_site(directory, allow_files())
    (directory / f"{MODULE}.py").write_text(f"import asyncio\n\n{POLICIES}")
    load = Load(load_cpu, directory, seconds, "edge" if load_generator_built() else "openssl", 1000, 1000)
    probe = {"h1": proxied_h1, "h2": proxied_h2}[protocol]
    readings: dict[str, list[float]] = {way: [] for way in ways}
    with contextlib.ExitStack() as running:
        running.enter_context(start_backend(site, load_cpu))
        servers = {}
        for i, (way, lines) in enumerate(ways.items()):
            servers[way] = server = Server(with_lines(i, lines), site, proxy_cpu)
            running.callback(server.stop)
            server.start()
            negotiated(server, server.patience)
        for turn in range(rounds):
            order = list(ways)
            for way in order[turn % len(order) :] + order[: turn % len(order)]:
                readings[way].append(probe(servers[way], load).value)
    return readings


def with_lines(number: int, lines: str) -> Peer:
    def configure(site: Site, program: str, port: int) -> Launch:
        launch = PEERS["edge"].configure(site, program, port)
        file = Path(launch.command[-1])
        file.write_text(file.read_text().replace("[server]\n", f"[server]\n{lines}"))
        return launch

    return dataclasses.replace(PEERS["edge"], name=f"edge-{number}", configure=configure)


def table(readings: dict[str, list[float]]) -> list[str]:
    """Markdown: the lowest reading of each way (what else runs on the machine only adds to it), and what it is more
    than, and times, that without hooks."""
    lowest = {way: min(values) for way, values in readings.items()}
    plain = lowest[next(iter(lowest))]
    lines = ["| | CPU \N{MICRO SIGN}s per request | more | ratio |", "|---|---|---|---|"]
    return lines + [
        f"| {way} | {value:.1f} | {value - plain:+.1f} | {value / plain:.2f} |" for way, value in lowest.items()
    ]
