"""Processes that tests start: found, waited for, ended by their own id, always in bounded time."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SANITIZED = os.environ.get("EDGE_BUILD") == "asan"
"""AddressSanitizer keeps freed memory for a while: then how much is resident says nothing."""

ROOT = Path(__file__).resolve().parents[2]


def peer(name: str, *places: str) -> str:
    """The path of a program that the test command installs. Its lack is a failure, unless missing peers are allowed."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *places))
    found = shutil.which(name, path=path)
    if found:
        return found
    message = f"{name} is not installed (./dev test installs it)"
    if os.environ.get("EDGE_ALLOW_MISSING_PEERS"):
        pytest.skip(message)
    pytest.fail(message, pytrace=False)


def free_port(family: int = socket.AF_INET) -> int:
    """A port that nobody listens on, below the range that outgoing connections take theirs from."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    while True:
        port = _next_port(low)
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            except OSError:
                continue
        return port


_ports_given: set[int] = set()


def _next_port(low: int) -> int:
    """At random between 12,000 and the range's begin; none twice, as a freed one may be remembered by a client."""
    while True:
        port = 12_000 + int.from_bytes(os.urandom(4), "big") % max(low - 12_000, 4_000)
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def wait_until(condition: Callable[[], object], seconds: float = 10, what: str | Callable[[], str] = "it is so"):
    """What the condition gives once that is true; AssertionError when it is not in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:g} s: {what() if callable(what) else what}"
        time.sleep(0.01)


def answers(port: int, host: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 0.5):
        return True
    return False


def run(command: Sequence[str], *, seconds: float = 30, **options) -> subprocess.CompletedProcess:
    """A command to its end, with what it wrote as text."""
    options.setdefault("text", True)
    options.setdefault("errors", "replace" if options["text"] else None)
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    words = list(map(str, command))
    return subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False, **options
    )


class Process:
    """A program in the background with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, **options) -> None:
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                start_new_session=True,  # a Ctrl-C at the terminal is the test run's to pass on
                **{"stderr": subprocess.STDOUT, **options},
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def started(self, condition: Callable[[], object], seconds: float = 10) -> None:
        def ready():
            assert self.popen.poll() is None, f"{self.popen.args[0]} ended at once:\n{self.output()}"
            return condition()

        try:
            wait_until(ready, seconds, f"start of {' '.join(self.popen.args)}:\n{self.output()}")
        except BaseException:
            self.kill()
            raise

    def wait(self, seconds: float = 10) -> int:
        """Its exit code, once it has ended."""
        return self.popen.wait(seconds)

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM, then its exit code; killed when it does not end in time."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.popen.args[0]} did not end on SIGTERM:\n{self.output()[-2000:]}") from None

    def kill(self) -> None:
        below = {*descendants(self.pid), *session(self.pid)} - {self.pid}
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def title(pid: int) -> str:
    """What it calls itself; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return ""


def titled(parent: int, beginning: str) -> dict[int, str]:
    """The titles of those children that begin so, by process id."""
    found = {pid: title(pid) for pid in sorted(children(parent))}
    return {pid: name for pid, name in found.items() if name.startswith(beginning)}


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended without being waited for."""
    return pid > 0 and _stat(pid)[:1] not in ([], ["Z"])


def session(pid: int) -> list[int]:
    """The living processes of the session that `pid` began, whoever their parents are now."""
    entries = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [p for p in entries if _stat(p)[3:4] == [str(pid)] and alive(p)]


def _stat(pid: int) -> list[str]:
    """From its state on (proc_pid_stat(5)); [] when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def rss(pid: int) -> int:
    """Resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} is gone")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
