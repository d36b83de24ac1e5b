"""Child processes that are measured: started on a chosen CPU, stopped without fail, read through /proc."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

STOP_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something that was to be measured cannot be; the message says why, for the user."""


class Process:
    """One child in a session of its own, with what it writes in `log`.

    It gets SIGTERM from the kernel if this process dies, so even a SIGKILL leaves nothing behind.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cpu: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._child.pid  # setpriv and taskset exec: it is the command's own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def running(self) -> bool:
        return self._child.poll() is None

    def wait(self, seconds: float) -> int:
        """The exit status; BenchError when it does not end in time."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"did not end within {seconds:.0f} s") from None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, characters: int = 400) -> str:
        return " | ".join(self.output().strip()[-characters:].splitlines()) or "no output"

    def stop(self) -> None:
        """SIGTERM to the whole session, SIGKILL to what is left of it."""
        members = tree(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members), STOP_SECONDS)


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found: list[int] = []
    todo = [pid]
    while todo:
        found.append(todo.pop())
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree's living threads, in seconds, at the scheduler's nanosecond grain."""
    nanoseconds = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                with contextlib.suppress(OSError):
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def memory_kib(pid: int) -> int:
    """Proportional set size of the tree, in KiB: shared pages are counted once."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M)
            total += int(found[1]) if found else 0
    return total


def busy_seconds(cpu: int) -> float:
    """Time that the CPU was not idle since boot, whoever used it (the hypervisor included)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise BenchError(f"this machine has no cpu {cpu}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def wait_listening(process: Process, port: int, seconds: float = 15) -> None:
    wait_until(lambda: accepts(port) or not process.running(), seconds)
    if not process.running() or not accepts(port):
        raise BenchError(f"did not start: {process.tail()}")


def allow_files(wanted: int = 65536) -> int:
    """Raises the limit of open files as far as `wanted` or as it may; returns what it is now. Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """SIGINT and SIGTERM become one KeyboardInterrupt; later ones wait, so cleaning up is not cut short."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
