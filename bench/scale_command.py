"""`python -m bench scale`: what grows with certificates, with routes, with idle connections."""

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.processes import BenchError, allow_files, stopping_on_signals
from bench.report import machine_facts
from bench.scale.curves import Curve, Panel, curves_chart
from bench.scale.serving import Machine
from bench.scale.site import Certificates, start_backend
from bench.scale.sweeps import BESIDE, SWEEPS, Point, Setting, Sweep, stamp

# What is told of a point while it is measured.
TOLD = {
    "certificates": ("start_s", "all_pss_kib", "first_handshake_us", "reload_master_s", "reload_pause_ms"),
    "routes": ("start_s", "all_pss_kib", "request_us", "reload_master_s", "reload_pause_ms"),
    "connections_h1": ("workers", "connection_bytes", "kernel_bytes", "idle_worker_ms", "request_us"),
    "connections_h2": ("workers", "connection_bytes", "kernel_bytes", "idle_worker_ms", "request_us"),
}

VM = "vm_"  # before the name of a curve that was measured in a virtual machine


def both(key: str, factor: float = 1, *, vm: tuple[str, ...] = ("HTTP/1.1",)) -> dict[str, tuple[str, str, float]]:
    """A figure of both protocols, and of some in a virtual machine."""
    kinds = {"HTTP/1.1": "h1", "HTTP/2": "h2"}
    own = {name: (f"connections_{kind}", key, factor) for name, kind in kinds.items()}
    return own | {f"{name}, VM": (f"{VM}connections_{kinds[name]}", key, factor) for name in vm}


# (title, unit, {name of a curve: (sweep, key, by which it is multiplied)}), of each chart
CHARTS: dict[str, tuple[str, tuple[tuple[str, str, dict[str, tuple[str, str, float]]], ...]]] = {
    "certificates": (
        "With more certificates",
        (
            ("Start and check", "CPU seconds", {
                "start, until it serves": ("certificates", "start_s", 1),
                "edge check": ("certificates", "check_s", 1),
            }),
            ("Reload", "CPU seconds", {
                "master, no file changed": ("certificates", "reload_master_s", 1),
                "a worker": ("certificates", "reload_worker_s", 1),
                "master, all files touched": ("certificates", "reread_master_s", 1),
            }),
            ("Memory", "MiB", {
                "all processes (PSS)": ("certificates", "all_pss_kib", 1 / 1024),
                "a worker's own": ("certificates", "worker_own_kib", 1 / 1024),
            }),
            ("Handshake with a request, names spread over all", "CPU µs", {
                "first of a name": ("certificates", "first_handshake_us", 1),
                "later": ("certificates", "handshake_us", 1),
            }),
            ("The longest pause of a worker's loop", "ms", {
                "reload, no file changed": ("certificates", "reload_pause_ms", 1),
                "reload, all files touched": ("certificates", "reread_pause_ms", 1),
                "renewal of one": ("certificates", "renewal_pause_ms", 1),
            }),
            ("When nothing is asked", "CPU ms in a second", {
                "master": ("certificates", "idle_master_ms", 1),
                "worker": ("certificates", "idle_worker_ms", 1),
            }),
        ),
    ),
    "routes": (
        "With more routes",
        (
            ("Start and check", "CPU seconds", {
                "start, until it serves": ("routes", "start_s", 1),
                "edge check": ("routes", "check_s", 1),
            }),
            ("Reload", "CPU seconds", {
                "master": ("routes", "reload_master_s", 1),
                "a worker": ("routes", "reload_worker_s", 1),
            }),
            ("Memory", "MiB", {
                "all processes (PSS)": ("routes", "all_pss_kib", 1 / 1024),
                "a worker's own": ("routes", "worker_own_kib", 1 / 1024),
            }),
            ("Request, URLs spread over all", "CPU µs", {
                "first of a URL": ("routes", "first_request_us", 1),
                "later": ("routes", "request_us", 1),
            }),
            ("The longest pause of a worker's loop", "ms", {"reload": ("routes", "reload_pause_ms", 1)}),
            ("When nothing is asked", "CPU ms in a second", {
                "master": ("routes", "idle_master_ms", 1),
                "worker": ("routes", "idle_worker_ms", 1),
            }),
        ),
    ),
    "connections": (
        "With more idle connections",
        (
            ("Memory of a connection, worker", "bytes", both("connection_bytes", vm=("HTTP/1.1", "HTTP/2"))),
            ("Memory of a connection, kernel", "bytes", both("kernel_bytes", vm=("HTTP/1.1", "HTTP/2"))),
            ("The worker's CPU while nothing is asked", "ms in a second", both("idle_worker_ms")),
            ("A busy connection beside them", "CPU µs", {
                "request": ("connections_h1", "request_us", 1),
                "handshake": ("connections_h1", "last_handshake_us", 1),
                "request, VM": ("vm_connections_h1", "request_us", 1),
                "handshake, VM": ("vm_connections_h1", "last_handshake_us", 1),
            }),
            ("Handshake of each, with a request", "CPU µs", both("accept_us", vm=())),
            ("Drain of all", "CPU ms", both("drain_worker_s", 1000)),
        ),
    ),
}  # fmt: skip

PATH = click.Path(path_type=Path)
MOST_FILES = 210_000  # descriptors that 100,000 connections and their upstreams could need


@dataclass(frozen=True)
class Options:
    what: tuple[str, ...]
    sizes: tuple[int, ...] | None
    seconds: float
    beside: float
    edge_cpu: int
    load_cpu: int
    clients: str
    addresses: str
    keep: Path | None
    json_file: Path | None
    vm_file: Path | None
    svg_directory: Path | None
    draw: bool


def whole_numbers(_context: object, _parameter: object, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        found = tuple(int(each) for each in value.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter("write numbers, separated by commas")
    return found


@click.command()
@click.argument("what", nargs=-1, type=click.Choice(list(SWEEPS)))
@click.option("--sizes", callback=whole_numbers, help="How many, separated by commas, in place of the curve's own.")
@click.option("-t", "--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Of a reading.")
@click.option(
    "--beside",
    type=click.FloatRange(1),
    default=BESIDE,
    show_default=True,
    help="Requests a second beside idle connections: fewer for an emulated processor.",
)
@click.option("--edge-cpu", type=click.IntRange(0), default=0, show_default=True, help="CPU of edge.")
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True, help="CPU of clients and backend.")
@click.option(
    "--clients",
    default="",
    metavar="ADDRESS:PORT",
    help="Clients of idle connections run where `python -m bench.scale.away --serve` does.",
)
@click.option("--addresses", default="", help="Of this machine, for those: one for 12,000 connections, with commas.")
@click.option("--keep", type=PATH, help="Make certificates in this directory, and find them there the next time.")
@click.option("--json", "json_file", type=PATH, help="Write what was found; other curves that are there stay.")
@click.option("--vm", "vm_file", type=PATH, help="Take over into --json what --json had in a virtual machine.")
@click.option("--svg", "svg_directory", type=PATH, help="Draw scale-certificates.svg and so on in this directory.")
@click.option("--draw", is_flag=True, help="Measure nothing: draw what --json has.")
def scale(**given: Any) -> None:
    """Measure what grows with the number of certificates, routes and idle connections.

    One worker, in front of an nginx that answers at once. What a process has used is the CPU time that the kernel's
    scheduler charged to it, so that a busy machine changes little; what waits is told as "wall" and "wait". A hundred
    thousand idle connections need as many descriptors: where the limit (ulimit -Hn) is lower, they are spread over as
    few workers as it allows, and `EDGE_HOSTS_IDLE=100000 ./dev hosts -k idle` has them on one, in a virtual machine.
    With all sizes this takes half an hour.

    \b
    Examples:
      python -m bench scale --json docs/scale.json --svg docs
      python -m bench scale certificates --sizes 10,1000
      python -m bench scale --draw --json docs/scale.json --svg docs
      python -m bench scale --draw --json docs/scale.json --vm .cache/hosts/idle.json --svg docs
    """
    options = Options(**given)
    if options.draw and (options.json_file is None or options.svg_directory is None):
        raise click.UsageError("--draw needs --json, what to draw, and --svg, where to")
    if options.clients and options.what != ("connections",):
        raise click.UsageError("--clients is for idle connections alone: scale connections")
    if options.vm_file is not None and options.json_file is None:
        raise click.UsageError("--vm needs --json")
    found: dict[str, Any] = {"curves": {}}
    if options.json_file is not None and options.json_file.exists():
        found = json.loads(options.json_file.read_text())
    if not options.draw:
        try:
            with stopping_on_signals():
                measure(found, options)
        except KeyboardInterrupt as e:
            raise click.ClickException(f"stopped ({e}): everything that was started has ended") from None
        except BenchError as e:
            raise click.ClickException(str(e)) from None
    if options.vm_file is not None and options.json_file is not None:
        take_over(found, json.loads(options.vm_file.read_text()))
        options.json_file.write_text(json.dumps(found, indent=1) + "\n")
    if options.svg_directory is not None:
        for name in CHARTS:
            if any(curve in found["curves"] for curve in SWEEPS[name]):
                (options.svg_directory / f"scale-{name}.svg").write_text(chart(name, found))


def measure(found: dict[str, Any], options: Options) -> None:
    """Fills `found`, and writes it after each point; leaves nothing running."""
    cpus = options.edge_cpu, options.load_cpu
    if cpus[0] == cpus[1] or not set(cpus) <= os.sched_getaffinity(0):
        raise BenchError(f"--edge-cpu and --load-cpu must be two of {sorted(os.sched_getaffinity(0))}")
    files = allow_files(MOST_FILES)
    if files < MOST_FILES and "connections" in (options.what or SWEEPS):
        click.echo(f"{files:,} open files are allowed here: more connections than that are several workers'", err=True)
    found |= {"when": stamp(), "machine": machine_facts({}), "files": files, "seconds": options.seconds}
    with contextlib.ExitStack() as kept:
        directory = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="edge-scale-")))
        addresses = tuple(filter(None, options.addresses.split(",")))
        machine = Machine(directory, *cpus, options.clients, addresses)
        backend, port = start_backend(directory, machine.load_cpu, files)
        kept.enter_context(backend)
        certificates = Certificates(options.keep or directory / "certificates")
        setting = Setting(machine, certificates, port, options.seconds, options.beside)
        for name in options.what or SWEEPS:
            for curve, sweep in SWEEPS[name].items():
                points = found["curves"][curve] = []
                for count in options.sizes or sweep.sizes:
                    points.append(measured(curve, sweep, setting, count))
                    if options.json_file is not None:
                        options.json_file.write_text(json.dumps(found, indent=1) + "\n")


def take_over(found: dict[str, Any], elsewhere: dict[str, Any]) -> None:
    """What was measured in a virtual machine, its facts and its curves beside ours."""
    found["vm"] = {name: value for name, value in elsewhere.items() if name != "curves"}
    found["curves"] |= {VM + name: points for name, points in elsewhere["curves"].items()}


def measured(curve: str, sweep: Sweep, setting: Setting, count: int) -> Point:
    begun = time.monotonic()
    point = {"n": count, **{name: round(value, 4) for name, value in sweep.measure(setting, count).items()}}
    figures = ", ".join(f"{name} {point[name]:g}" for name in TOLD[curve])
    click.echo(f"{curve} {count:,}: {figures} ({time.monotonic() - begun:.0f} s)")
    return point


def chart(name: str, found: dict[str, Any]) -> str:
    title, panels = CHARTS[name]
    facts = found["machine"]
    subtitle = f"{facts['cpu']}, Linux {facts['kernel']}, OpenSSL {facts['openssl']}; one worker; {found['when'][:10]}"
    if name == "connections" and "vm" in found:
        subtitle += f"; VM: {found['vm']['machine']['cpu']}"
    drawn = []
    for heading, unit, of in panels:
        curves = [Curve(label, points(found, *source)) for label, source in of.items()]
        drawn.append(Panel(heading, unit, [curve for curve in curves if curve.points]))
    return curves_chart(title, subtitle, name, drawn)


def points(found: dict[str, Any], curve: str, key: str, factor: float) -> list[tuple[float, float]]:
    """Of one worker: those of several are kept as figures alone."""
    of_one = [point for point in found["curves"].get(curve, []) if point.get("workers", 1) == 1 and key in point]
    return sorted((point["n"], point[key] * factor) for point in of_one)
