"""edge on a configuration: what its start, its reloads and its work cost, process by process."""

import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.peers import ROOT
from bench.processes import BenchError, Process, accepts, tree, wait_until
from bench.scale import meter

START_SECONDS = 1800.0
PATIENCE = 600.0  # seconds beyond its planned time that a client may take, on an emulated processor
PROBE_SECONDS = 0.005
WORKER = "edge: worker"
CPUCLOCK_SCHED = 2  # of a process by its id: what clock_getcpuclockid(3) gives, at the scheduler's grain
METER = "bench_scale_meter"  # the module of that policy
PORT = "@PORT@"  # stands for it in configurations


@dataclass(frozen=True)
class Machine:
    """Who runs where, and the clients' files."""

    directory: Path
    edge_cpu: int
    load_cpu: int
    away: str = ""
    """Where bench.scale.away serves, if clients run elsewhere."""
    addresses: tuple[str, ...] = ()
    """Of this machine, for those."""

    def address(self, number: int) -> str:
        """One for each client that holds many connections."""
        if not self.away:
            return f"127.0.0.{number + 1}"
        if number >= len(self.addresses):
            raise BenchError(f"clients elsewhere need {number + 1} addresses to connect to: --addresses has fewer")
        return self.addresses[number]

    @property
    def ends(self) -> int:
        """Of a connection, in this kernel."""
        return 1 if self.away else 2


def own_cpu(pid: int) -> float:
    """CPU seconds of one process, threads that have ended included; 0 when it has ended itself."""
    try:
        return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def memory(pid: int) -> dict[str, int]:
    """KiB of one process: "pss", "rss", and "own", which it shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name.lower(): int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {"pss": sizes["pss"], "rss": sizes["rss"], "own": sizes["private_clean"] + sizes["private_dirty"]}


def quiet_port() -> int:
    """A free one that no client's connection takes until edge listens on it, however many there are."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(min(10_000, first - 1000), first), 100):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise BenchError("no port is free below those of clients")


def title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def handshake(port: int, name: str, seconds: float) -> bytes:
    """The certificate that clients see by this name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), seconds) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


class Edge:
    """edge, serving `text` with PORT filled in. Times are seconds of CPU unless a name says "wall"."""

    def __init__(
        self, machine: Machine, name: str, text: str, *, workers: int = 1, server: str = "", drain: str = "30s"
    ) -> None:
        self.machine = machine
        self.port = quiet_port()
        self.file = machine.directory / f"{name}.toml"
        # A path of a Unix socket is short.
        self._admin = machine.directory / "admin.sock"
        head = f'[server]\nworkers = {workers}\nadmin = "unix:{self._admin}"\ndrain_timeout = "{drain}"\n{server}'
        (machine.directory / f"{METER}.py").write_text(Path(meter.__file__).read_text())
        text += f'[[route]]\nmatch = {{ host = ["{meter.HOST}"] }}\nupstream = "backend"\nhooks = "{METER}:Policy"\n'
        self.file.write_text(head + text.replace(PORT, str(self.port)))
        self._log = machine.directory / f"{name}.log"
        self.workers: list[int] = []
        self.process: Process | None = None
        self.start_wall = self.start_cpu = 0.0

    def __enter__(self) -> Self:
        begun = time.monotonic()
        command = [sys.executable, "-m", "edge", "run", "--config", str(self.file)]
        self.process = Process(command, cpu=self.machine.edge_cpu, log=self._log, directory=ROOT)
        try:
            wait_until(lambda: accepts(self.port) or not self.running(), START_SECONDS)
            if not self.running() or not accepts(self.port):
                raise BenchError(f"edge did not start: {self.process.tail()}")
            handshake(self.port, "localhost", START_SECONDS)
            self.start_wall = time.monotonic() - begun
            self.start_cpu = own_cpu(self.master)
            self.workers = sorted(pid for pid in tree(self.master) if title(pid).startswith(WORKER))
            if not self.workers:
                raise BenchError(f"edge has no workers: {[title(pid) for pid in tree(self.master)]}")
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.stop()

    def running(self) -> bool:
        return self.process is not None and self.process.running()

    @property
    def master(self) -> int:
        if self.process is None:
            raise BenchError("edge is not running")
        return self.process.pid

    def workers_cpu(self) -> float:
        return sum(map(own_cpu, self.workers))

    def memory(self) -> dict[str, Any]:
        """KiB: of the master, of one worker, and of all processes together ("pss" alone counts what is shared once)."""
        everything = sum(memory(pid)["pss"] for pid in tree(self.master))
        return {"master": memory(self.master), "worker": memory(self.workers[0]), "all": everything}

    def idle(self, seconds: float) -> dict[str, float]:
        """CPU time in a second in which nothing is asked: of master and workers."""
        master, workers, begun = own_cpu(self.master), self.workers_cpu(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begun
        return {"master": (own_cpu(self.master) - master) / took, "worker": (self.workers_cpu() - workers) / took}

    def reload(self) -> dict[str, float]:
        """What one costs, and the longest that a request waited beside it."""
        master, workers = own_cpu(self.master), self.workers_cpu()
        with probing(self.port) as waits, metering(self.port) as pause:
            wall = self.ask("reload", "--wait", "--timeout", "30m")
        ordered = sorted(waits)
        return {
            "wall": wall,
            "master": own_cpu(self.master) - master,
            "worker": self.workers_cpu() - workers,
            "wait_median": ordered[len(ordered) // 2],
            "wait_p99": ordered[len(ordered) * 99 // 100],
            "pause": pause[0],
        }

    def ask(self, *words: str) -> float:
        """A command of edge's to the running one: the seconds until it has ended."""
        begun = time.monotonic()
        command = [sys.executable, "-m", "edge", *words, "--admin", str(self._admin)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, cwd=ROOT, check=False)
        if ran.returncode:
            raise BenchError(f"edge {' '.join(words)} failed: {(ran.stdout + ran.stderr)[-400:]}")
        return time.monotonic() - begun

    def end(self, seconds: float = 0) -> dict[str, float]:
        """Drains all workers, within PATIENCE and so many seconds: how long that takes, and their CPU time for it as
        far as it was seen."""
        used, last, begun = self.workers_cpu(), 0.0, time.monotonic()
        os.kill(self.master, signal.SIGTERM)
        while any(title(pid).startswith(WORKER) for pid in self.workers):
            last = max(last, self.workers_cpu())
            if time.monotonic() - begun > PATIENCE + seconds:
                raise BenchError("the workers do not end")
            time.sleep(0.005)
        return {"wall": time.monotonic() - begun, "worker": max(0.0, last - used)}


def check(edge_file: Path) -> dict[str, float]:
    """What `edge check` takes."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "edge", "check", "--config", str(edge_file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, cwd=ROOT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        raise BenchError(f"edge check failed: {(ran.stdout + ran.stderr)[-400:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.monotonic() - begun, "cpu": used}


@contextlib.contextmanager
def probing(port: int) -> Iterator[list[float]]:
    """Asks over a kept connection all the time; how long each answer took, in seconds, is in the list at the end."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost")
    waits: list[float] = []
    failed: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        try:
            while not over.is_set() or not waits:
                begun = time.monotonic()
                connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if not connection.recv(16384).startswith(b"HTTP/1.1 "):
                    raise BenchError("no answer beside a reload")
                waits.append(time.monotonic() - begun)
                over.wait(PROBE_SECONDS)
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join(30)
        connection.close()
    if failed or not waits:
        raise BenchError(f"requests beside a reload failed: {failed}")


@contextlib.contextmanager
def metering(port: int) -> Iterator[list[float]]:
    """The longest that the worker's loop made others wait, in seconds, is in the list at the end."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    found: list[float] = []

    def ask(path: str) -> float:
        request = f"GET {path} HTTP/1.1\r\nHost: {meter.HOST}\r\nConnection: close\r\n\r\n"
        with (
            socket.create_connection(("127.0.0.1", port), 30) as raw,
            context.wrap_socket(raw, server_hostname=meter.HOST) as connection,
        ):
            connection.sendall(request.encode())
            answer = b""
            while more := connection.recv(16384):
                answer += more
        return float(answer.partition(b"\r\n\r\n")[2])

    ask("/start")
    yield found
    found.append(ask("/longest"))


def load(machine: Machine, edge: Edge, options: list[str], *, path: str = "/") -> dict[str, Any]:
    """What `bench load` found; "server_us": the workers' CPU time for each of what it did."""
    before = edge.workers_cpu()
    with generator(machine, edge, options, path=path) as process:
        status = process.wait(PATIENCE)
        used = edge.workers_cpu() - before
        if status:
            raise BenchError(f"the clients failed: {process.tail()}")
        found: dict[str, Any] = json.loads(process.output().strip().splitlines()[-1])
    return {**found, "server_us": used / found["done"] * 1e6}


def generator(machine: Machine, edge: Edge, options: list[str], *, path: str = "/", number: int = 0) -> Process:
    """`bench load`, to the address of that number."""
    url = f"https://localhost:{edge.port}{path}"
    words = [url, "--address", machine.address(number), "--json", "--timeout", "60", *options]
    way = ["bench.scale.away", machine.away] if machine.away else ["bench", "load"]
    log = machine.directory / f"clients-{time.monotonic_ns()}.log"
    return Process([sys.executable, "-m", *way, *words], cpu=machine.load_cpu, log=log, directory=ROOT)


def patiently(condition: Callable[[], bool], seconds: float, what: str) -> None:
    if not wait_until(condition, seconds):
        raise BenchError(f"{what} took more than {seconds:g} s")
