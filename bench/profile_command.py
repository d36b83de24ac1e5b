"""`python -m bench profile`: where a proxy's CPU time goes under a chosen load."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bench.peers import PEERS, Server, make_site, start_backend
from bench.probes import PROBES, Load, load_generator_built, negotiated
from bench.processes import BenchError, Process, allow_files, stopping_on_signals, tree
from bench.svg import number

FREQUENCY = 1999  # samples per second; prime, so that it keeps no step with the system's tick
CALLGRIND_START = 120.0  # seconds; everything is some 50 times slower under valgrind
SAMPLE = re.compile(r"^\s*(\d+\.\d+)%\s+(\S+)\s+\[\S\]\s+(.+?)(?:\s+-)*\s*$")
INSTRUCTIONS = re.compile(r"^\s*([\d,]+) \(\s*(\d+\.\d+)%\)\s+(.+)$")


@click.command()
@click.option("--load", "probe", type=click.Choice(list(PROBES)), default="handshake", show_default=True)
@click.option("--peer", type=click.Choice(list(PEERS)), default="edge", show_default=True, help="Whose profile.")
@click.option(
    "--tool",
    type=click.Choice(["perf", "callgrind"]),
    default="perf",
    show_default=True,
    help="perf samples the CPU clock; callgrind counts instructions, exact but slow.",
)
@click.option("--seconds", type=click.FloatRange(0.5), default=5.0, show_default=True, help="Length of the load.")
@click.option("--top", type=click.IntRange(1), default=40, show_default=True, help="Lines to print.")
@click.option(
    "--callers",
    type=click.Choice(["none", "fp", "dwarf", "lbr"]),
    default="none",
    show_default=True,
    help="Record call graphs too (perf) by this method and print who calls the top symbols.",
)
@click.option("--proxy-cpu", type=click.IntRange(0), default=0, show_default=True)
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the raw profile (perf.data, callgrind.out.*) here.")
def profile(**options: Any) -> None:
    """Profile a worker under load: CPU share by library and by symbol.

    The loads are those of `compare`. Functions of a library that was stripped of their names are summed up per
    library; Debian's -dbgsym packages bring the names back. Needs linux-perf or valgrind.

    \b
    Examples:
      python -m bench profile --load handshake
      python -m bench profile --load bulk --peer nginx --callers dwarf
      python -m bench profile --tool callgrind --load h1 --seconds 2
    """
    program = {"perf": "perf", "callgrind": "valgrind"}[options["tool"]]
    if shutil.which(program) is None:
        raise click.ClickException(f"{program} is needed: apt install {'linux-perf' if program == 'perf' else program}")
    os.sched_setaffinity(0, {options["load_cpu"]})
    directory = Path(tempfile.mkdtemp(prefix="edge-profile-"))
    try:
        with stopping_on_signals():
            lines = record(directory, **options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BenchError as e:
        raise click.ClickException(str(e)) from None
    finally:
        if options["keep"] is not None:
            options["keep"].mkdir(parents=True, exist_ok=True)
            for raw in (*directory.glob("perf.data"), *directory.glob("callgrind.out.*")):
                shutil.copy(raw, options["keep"])
        shutil.rmtree(directory, ignore_errors=True)
    click.echo("\n".join(lines))


def record(
    directory: Path,
    *,
    probe: str,
    peer: str,
    tool: str,
    seconds: float,
    top: int,
    callers: str,
    proxy_cpu: int,
    load_cpu: int,
    keep: Path | None,
) -> list[str]:
    """Runs the load with the tool attached -> the report's lines."""
    site = make_site(directory, allow_files())
    load = Load(load_cpu, directory, seconds, "edge" if load_generator_built() else "openssl", 1000, 1000)
    server = Server(PEERS[peer], site, proxy_cpu)
    if tool == "callgrind":
        out = directory / "callgrind.out.%p"
        server.prefix = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no"]
        server.prefix += [f"--callgrind-out-file={out}", "--dump-instr=no"]
        server.patience = CALLGRIND_START
    with contextlib.ExitStack() as running:
        running.enter_context(start_backend(site, load_cpu))
        running.callback(server.stop)
        server.start()
        negotiated(server, server.patience)
        if tool == "perf":
            return [*with_perf(server, load, probe, callers, top)]
        with_callgrind(server, load, probe)
    return callgrind_report(directory, top)


def with_perf(server: Server, load: Load, probe: str, callers: str, top: int) -> list[str]:
    data = load.directory / "perf.data"
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", str(data)]
    command += ["-p", ",".join(map(str, tree(server.pid)))]
    if callers != "none":
        command += ["--call-graph", callers]
    with Process(command, cpu=load.cpu, log=load.directory / "perf.log") as perf:
        time.sleep(0.5)
        if not perf.running():
            raise BenchError(f"perf did not start: {perf.tail()}")
        reading = PROBES[probe].take(server, load)
    unit = PROBES[probe].unit
    lines = [f"{server.peer.name}, {probe}: {number(reading.value)} {unit} ({reading.count:,} done, while sampled)", ""]
    report = perf_report(data, "--no-children", "-g", "none", "--sort", "dso,symbol")
    lines += symbol_table(report.splitlines(), top)
    if callers != "none":
        lines += [
            "",
            *perf_report(data, "--no-children", "-g", "caller,0.5,callee", "--percent-limit", "2").splitlines(),
        ]
    return lines


def perf_report(data: Path, *options: str) -> str:
    command = ["perf", "report", "-i", str(data), "--stdio", *options]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ran.returncode:
        raise BenchError(f"perf report failed: {ran.stderr.strip()[-300:]}")
    return ran.stdout


def symbol_table(report: Iterable[str], top: int) -> list[str]:
    """Lines of `perf report --sort dso,symbol` -> two tables, by library and by symbol, highest share first."""
    libraries: dict[str, float] = {}
    symbols: dict[tuple[str, str], float] = {}
    for line in report:
        found = SAMPLE.match(line)
        if not found:
            continue
        share, library, symbol = found.groups()
        library = library.partition(".cpython-")[0]
        symbol = "(no name)" if symbol.startswith("0x") else plain_name(symbol)
        libraries[library] = libraries.get(library, 0.0) + float(share)
        symbols[library, symbol] = symbols.get((library, symbol), 0.0) + float(share)
    if not symbols:
        raise BenchError("perf took no samples")
    lines = [f"{share:6.2f}%  {library}" for library, share in ranked(libraries)[:12]] + [""]
    return lines + [f"{share:6.2f}%  {library:<18} {symbol}" for (library, symbol), share in ranked(symbols)[:top]]


def plain_name(symbol: str) -> str:
    """Cython's "__pyx_f_4cext_3net_4loop_4Loop_turn" as "cext.net.loop.Loop.turn"; other names as they are."""
    found = re.match(r"__pyx_(?:f|pf|pw)_(?=\d)", symbol)
    if not found:
        return symbol
    parts, rest = [], symbol[found.end() :]
    while sized := re.match(r"(\d+)(?=\D)", rest):
        end = sized.end() + int(sized[1])
        parts.append(rest[sized.end() : end])
        rest = rest[end:].removeprefix("_")
    return ".".join([*parts, rest]) if rest else ".".join(parts)


def ranked(shares: dict[Any, float]) -> list[tuple[Any, float]]:
    return sorted(shares.items(), key=lambda each: -each[1])


def with_callgrind(server: Server, load: Load, probe: str) -> None:
    """Counts the instructions of the load alone, not of the start."""
    switch_callgrind(server, load, "on")
    PROBES[probe].take(server, load)
    switch_callgrind(server, load, "off")


def switch_callgrind(server: Server, load: Load, state: str) -> None:
    for pid in tree(server.pid):
        command = ["callgrind_control", "-i", state, str(pid)]
        load.finish(load.run(*command), 30)


def callgrind_report(directory: Path, top: int) -> list[str]:
    """The functions of the process that worked most."""
    reports = []
    for raw in directory.glob("callgrind.out.*"):
        ran = subprocess.run(["callgrind_annotate", raw], capture_output=True, text=True, check=False)
        counted = [INSTRUCTIONS.match(line) for line in ran.stdout.splitlines()]
        found = [(int(m[1].replace(",", "")), m[2], m[3]) for m in counted if m]
        if found:
            reports.append(found)
    if not reports:
        raise BenchError("callgrind counted nothing")
    total, *functions = max(reports)
    lines = [f"{total[0]:,} instructions", ""]
    return lines + [f"{share:>6}%  {plain_function(name)}" for _, share, name in functions[:top]]


def plain_function(line: str) -> str:
    """callgrind_annotate's "file:function [object]" with the names that matter."""
    found = re.match(r"(?:.*:)?([^\s:]+)(?: \[(.*)\])?$", line)
    if not found:
        return line
    library = Path(found[2] or "").name.partition(".cpython-")[0]
    return f"{library:<18} {plain_name(found[1])}"
