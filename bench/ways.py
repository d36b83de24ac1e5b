"""What a setting costs each request: the same server in several ways, all up at once and measured in turn."""

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from bench.peers import PEERS, Launch, Peer, Server, Site, make_site, start_backend
from bench.probes import Load, load_generator_built, negotiated, proxied_h1, proxied_h2
from bench.processes import BenchError, allow_files, stopping_on_signals

_OPTION = functools.partial(click.option, show_default=True)
_OPTIONS: Final = (
    _OPTION("--rounds", type=click.IntRange(1), default=5, help="Readings; the lowest is shown."),
    _OPTION("--seconds", type=click.FloatRange(0.5), default=2.0, help="Length of a reading."),
    _OPTION("--protocol", type=click.Choice(["h1", "h2"]), default="h1"),
    _OPTION("--proxy-cpu", type=click.IntRange(0), default=0, help="CPU of the worker."),
    _OPTION("--load-cpu", type=click.IntRange(0), default=1, help="CPU of clients and backend."),
)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that `show` has as its arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def show(
    name: str,
    ways: contextlib.AbstractContextManager[dict[str, str]],
    files: dict[str, str] | None = None,
    **chosen: Any,
) -> None:
    """Measures `ways`, of which each has lines of its own under [server], and prints a table. `files`: what lies beside
    the configurations."""
    os.sched_setaffinity(0, {chosen["load_cpu"]})
    with temporary(f"edge-{name}-") as directory:
        try:
            with stopping_on_signals(), ways as lines:
                found = measure(directory, lines, files or {}, **chosen)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BenchError as e:
            raise click.ClickException(str(e)) from None
    click.echo("\n".join(table(found)))


@contextlib.contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(
    directory: Path,
    ways: dict[str, str],
    files: dict[str, str],
    *,
    rounds: int,
    seconds: float,
    protocol: str,
    proxy_cpu: int,
    load_cpu: int,
) -> dict[str, list[float]]:
    """Microseconds of CPU per request: every reading of every way."""
    site = make_site(directory, allow_files())
    for name, content in files.items():
        (directory / name).write_text(content)
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
    than, and times, the first."""
    lowest = {way: min(values) for way, values in readings.items()}
    plain = lowest[next(iter(lowest))]
    lines = ["| | CPU \N{MICRO SIGN}s per request | more | ratio |", "|---|---|---|---|"]
    return lines + [
        f"| {way} | {value:.1f} | {value - plain:+.1f} | {value / plain:.2f} |" for way, value in lowest.items()
    ]
