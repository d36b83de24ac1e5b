"""What is measured with a number of certificates, routes or idle connections: a function for each, in SWEEPS.

Each gives a flat dictionary; its names end in the unit: _s and _ms (of CPU, unless "wall" or "wait" is in the name),
_us, _kib, _bytes.
"""

import contextlib
import datetime
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509

from bench.processes import BenchError, allow_files, wait_until
from bench.scale import serving, site
from bench.scale.serving import Edge, Machine

Point = dict[str, float]
PAGE = os.sysconf("SC_PAGE_SIZE")
ASKED = 1000  # names or URLs that the clients of a point ask for, for each second of a reading
SPARE = 2000  # descriptors that a process keeps for other things than connections
# To one address and port: when half of its 28,000 ports are taken the kernel looks for each in vain for long.
CONNECTIONS_OF_A_CLIENT = 12_000
SETTLE_SECONDS = 1.0  # at most
BESIDE = 500.0
HANDSHAKE_SECONDS = 0.05  # that one may take before it is no use to wait for all, on an emulated processor
TELL_SECONDS = 15.0


@dataclass(frozen=True)
class Setting:
    """What all points share."""

    machine: Machine
    certificates: site.Certificates
    backend: int  # its port
    seconds: float  # for what is measured over a time
    beside: float = BESIDE  # requests a second beside idle connections

    @property
    def asked(self) -> int:
        return max(100, round(ASKED * self.seconds))

    def settle(self) -> None:
        """Lets what goes on beside come to its end."""
        time.sleep(min(SETTLE_SECONDS, self.seconds))


def configuration(setting: Setting, certificates: str, routes: str, *, address: str = "127.0.0.1") -> str:
    return (
        f'[[listener]]\nbind = ["{address}:{serving.PORT}"]\n'
        'timeouts = { handshake = "1m", keepalive = "24h" }\nlimits = { connections = 10000000 }\n'
        f'{certificates}[[upstream]]\nname = "backend"\nservers = ["127.0.0.1:{setting.backend}"]\n{routes}'
    )


ANY = '[[route]]\nupstream = "backend"\n'


def picked(count: int, asked: int) -> list[int]:
    """Of so many, those that are asked for: at random, spread over all, each time the same."""
    return random.Random(count).choices(range(count), k=asked)


def certificates(setting: Setting, count: int) -> Point:
    """`count` certificates of one listener, and handshakes for names spread over all of them."""
    setting.certificates.make(count)
    machine = setting.machine
    text = configuration(setting, setting.certificates.tables(count), ANY)
    edge = Edge(machine, "certificates", text, server=f'certificate_check = "{max(1, round(setting.seconds))}s"\n')
    found = checked(edge)
    names = machine.directory / "names.txt"
    names.write_text("\n".join(site.certificate_name(i) for i in picked(count, setting.asked)))
    with edge:
        found |= started(edge)
        asking = ["--mode", "handshake", "--names", str(names), "--count", str(setting.asked)]
        # The first time, a certificate's memory is the master's still, and none of it is in the processor's caches.
        found["first_handshake_us"] = serving.load(machine, edge, asking)["server_us"]
        found["handshake_us"] = serving.load(machine, edge, asking)["server_us"]
        found |= idle(setting, edge)
        found |= renamed("reload", edge.reload())
        for i in range(count):
            os.utime(setting.certificates.chain(i))
        found |= renamed("reread", edge.reload())
        found |= renewed(setting, edge, count - 1)
        found |= {f"after_{name}": value for name, value in sizes(edge).items()}
    return found


def renewed(setting: Setting, edge: Edge, index: int) -> Point:
    """One certificate is replaced: until it is shown, and what that takes."""
    master, worker, begun = serving.own_cpu(edge.master), edge.workers_cpu(), time.monotonic()
    setting.certificates.issue(index, index + 1)
    wanted = x509.load_pem_x509_certificates(setting.certificates.chain(index).read_bytes())[0].serial_number
    with serving.metering(edge.port) as pause:
        serving.patiently(lambda: shown(edge, site.certificate_name(index)) == wanted, 120, "a renewal")
        wall = time.monotonic() - begun
    return {
        "renewal_wall_s": wall,
        "renewal_master_s": serving.own_cpu(edge.master) - master,
        "renewal_worker_s": edge.workers_cpu() - worker,
        "renewal_pause_ms": pause[0] * 1e3,
    }


def shown(edge: Edge, name: str) -> int:
    """The serial number of the certificate that clients see by this name."""
    return x509.load_der_x509_certificate(serving.handshake(edge.port, name, 30)).serial_number


def routes(setting: Setting, count: int) -> Point:
    """`count` routes: a third by host, a third by the domain above, a third by the path of one host."""
    setting.certificates.make(1)
    machine = setting.machine
    edge = Edge(machine, "routes", configuration(setting, setting.certificates.tables(1), site.routes(count)))
    found = checked(edge)
    targets = machine.directory / "targets.txt"
    targets.write_text("\n".join(site.route(i)[1] for i in picked(count, setting.asked)))
    with edge:
        found |= started(edge)
        asking = ["--mode", "requests", "--concurrency", "16", "--targets", str(targets)]
        asking += ["--count", str(4 * setting.asked)]
        found["first_request_us"] = serving.load(machine, edge, asking)["server_us"]
        found["request_us"] = serving.load(machine, edge, asking)["server_us"]
        found |= idle(setting, edge)
        found |= renamed("reload", edge.reload())
        found |= {f"after_{name}": value for name, value in sizes(edge).items()}
    return found


def checked(edge: Edge) -> Point:
    took = serving.check(edge.file)
    return {"check_s": took["cpu"], "check_wall_s": took["wall"]}


def started(edge: Edge) -> Point:
    return {"start_s": edge.start_cpu, "start_wall_s": edge.start_wall, **sizes(edge)}


def sizes(edge: Edge) -> Point:
    found = edge.memory()
    kib: Point = {"all_pss_kib": found["all"]}
    for process in ("master", "worker"):
        kib |= {f"{process}_{name}_kib": value for name, value in found[process].items()}
    return kib


def idle(setting: Setting, edge: Edge) -> Point:
    setting.settle()
    found = edge.idle(2 * setting.seconds)
    return {"idle_master_ms": found["master"] * 1e3, "idle_worker_ms": found["worker"] * 1e3}


def renamed(name: str, reload: dict[str, float]) -> Point:
    return {
        f"{name}_wall_s": reload["wall"],
        f"{name}_master_s": reload["master"],
        f"{name}_worker_s": reload["worker"],
        f"{name}_wait_median_ms": reload["wait_median"] * 1e3,
        f"{name}_wait_p99_ms": reload["wait_p99"] * 1e3,
        f"{name}_pause_ms": reload["pause"] * 1e3,
    }


# Connections.


def connections_h1(setting: Setting, count: int) -> Point:
    return connections(setting, count, ["--bare"])


def connections_h2(setting: Setting, count: int) -> Point:
    return connections(setting, count, ["--bare", "--h2"])


def connections(setting: Setting, count: int, options: list[str]) -> Point:
    """`count` connections that have had a response and say no more, on as few workers as the limit of descriptors
    allows; then others that are busy beside them."""
    setting.certificates.make(1)
    machine = setting.machine
    files = allow_files(2 * count + 2 * SPARE)
    workers = math.ceil(count / max(files - SPARE, 1))
    text = configuration(setting, setting.certificates.tables(1), ANY, address="0.0.0.0")
    with Edge(machine, "connections", text, workers=workers, drain="30m") as edge:
        serving.load(machine, edge, ["--mode", "handshake", "--count", "200"])
        setting.settle()
        own, kernel, used = own_memory(edge), kernel_memory(), edge.workers_cpu()
        with held(machine, edge, count, min(files - SPARE, CONNECTIONS_OF_A_CLIENT), options):
            found: Point = {"workers": workers, "accept_us": (edge.workers_cpu() - used) / count * 1e6}
            setting.settle()
            found["connection_bytes"] = (own_memory(edge) - own) * 1024 / count
            found["kernel_bytes"] = (kernel_memory() - kernel) / count / machine.ends
            found["idle_worker_ms"] = edge.idle(setting.seconds)["worker"] * 1e3
            rate = f"{setting.beside:g}"
            asking = ["--mode", "requests", "-c", "16", "--rate", rate, "--seconds", f"{setting.seconds:g}"]
            beside = serving.load(machine, edge, asking)
            found["request_us"] = beside["server_us"]
            found["request_wait_median_us"] = beside["latency_us"]["p50"]
            found["request_wait_p99_us"] = beside["latency_us"]["p99"]
            last = serving.load(machine, edge, ["--mode", "handshake", "--count", str(setting.asked)])
            found["last_handshake_us"] = last["server_us"]
            alone = serving.load(machine, edge, ["--mode", "handshake", "-c", "1", "--count", "100"])
            found["fresh_wait_median_us"] = alone["latency_us"]["p50"]
            found["fresh_wait_p99_us"] = alone["latency_us"]["p99"]
            found |= attempted(lambda: asked(edge, "list", "show", "connections", "--json", "--limit", str(2 * count)))
            found |= attempted(lambda: asked(edge, "status", "status"))
            found |= attempted(lambda: renamed("reload", edge.reload()))
            found["after_connection_bytes"] = (own_memory(edge) - own) * 1024 / count
            found |= attempted(lambda: drained(edge, count))
    return found


def attempted(measure: Callable[[], Point]) -> Point:
    """What fails does so alone: all those connections are not to be made again for it."""
    try:
        return measure()
    except (BenchError, OSError) as e:
        click.echo(f"  not measured: {e}", err=True)
        return {}


def asked(edge: Edge, name: str, *words: str) -> Point:
    """A command to the running edge: how long it takes, and how long the worker's loop makes others wait meanwhile."""
    with serving.metering(edge.port) as pause:
        wall = edge.ask(*words)
    return {f"{name}_wall_s": wall, f"{name}_pause_ms": pause[0] * 1e3}


def drained(edge: Edge, count: int) -> Point:
    ended = edge.end(count * HANDSHAKE_SECONDS)
    return {"drain_wall_s": ended["wall"], "drain_worker_s": ended["worker"]}


def own_memory(edge: Edge) -> int:
    """KiB that the workers share with nobody."""
    return sum(serving.memory(pid)["own"] for pid in edge.workers)


def kernel_memory() -> int:
    """Bytes that the kernel has for objects of its own, and for what waits in sockets."""
    slab = re.search(r"^Slab:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    pages = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    if not slab or not pages:
        raise BenchError("/proc does not tell the kernel's memory")
    return int(slab[1]) * 1024 + int(pages[1]) * PAGE


@contextlib.contextmanager
def held(machine: Machine, edge: Edge, count: int, most: int, options: list[str]) -> Iterator[None]:
    """So many connections, held by clients that have `most` each, to an address of its own."""
    with contextlib.ExitStack() as clients:
        for i, first in enumerate(range(0, count, most)):
            number = min(most, count - first)
            wanted = ["--mode", "idle", "--count", str(number), "--seconds", "86400", "--max-errors", "1", *options]
            client = clients.enter_context(serving.generator(machine, edge, wanted, number=i))
            holds = progress(lambda client=client: '"held"' in client.output() or not client.running(), machine, count)
            wait_until(holds, serving.PATIENCE + number * HANDSHAKE_SECONDS)
            if '"held"' not in client.output():
                raise BenchError(f"the connections were not made: {client.tail()}")
        yield


def progress(done: Callable[[], bool], machine: Machine, count: int) -> Callable[[], bool]:
    """The same, which tells how far it is where that takes long."""
    last = time.monotonic()

    def tells() -> bool:
        nonlocal last
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            sockets = re.search(r"^TCP: inuse (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
            click.echo(f"  {int(sockets[1]) // machine.ends if sockets else 0:,} of {count:,} connections", err=True)
        return done()

    return tells


@dataclass(frozen=True)
class Sweep:
    measure: Callable[[Setting, int], Point]
    sizes: tuple[int, ...]


SWEEPS = {
    "certificates": {"certificates": Sweep(certificates, (10, 100, 1000, 10_000, 100_000))},
    "routes": {"routes": Sweep(routes, (10, 100, 1000, 10_000, 50_000))},
    "connections": {
        "connections_h1": Sweep(connections_h1, (1, 10, 100, 1000, 10_000, 100_000)),
        "connections_h2": Sweep(connections_h2, (1, 10, 100, 1000, 10_000, 100_000)),
    },
}


def stamp() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
