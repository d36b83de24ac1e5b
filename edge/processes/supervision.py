"""How a worker that has gone wrong is found out, and what is left of it to tell.

One that hangs is told by its heartbeat, and ended by SIGABRT: Python's faulthandler then writes, from C and whatever
the interpreter is doing, where each of its threads is. It does so into memory that the master shares, so that the text
reaches the error log wherever that goes. A worker that crashes tells the same way.
"""

import fcntl
import math
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edge.logs.errorlog import one_line

if TYPE_CHECKING:
    from edge.worker import EdgeWorker

ABORT_SECONDS: Final = 3.0
"""Between SIGABRT, for the stacks, and SIGKILL."""
ALARM_SECONDS: Final = 5
"""A worker that has hung for so much longer than `worker_timeout` is ended by the kernel: its master is not there."""

_DUMP_BYTES: Final = 64 << 10
_LINES_MOST: Final = 200
_DROPPED: Final = re.compile(r"\s*$|Extension modules: ")


class StackDump:
    """Memory for a worker's last words: made before the fork, written by the worker's faulthandler (`fd`), read by the
    master. It cannot grow, whatever the worker writes."""

    def __init__(self) -> None:
        self.fd = -1
        self.fd = os.memfd_create("edge-stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, _DUMP_BYTES)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)

    def lines(self) -> list[str]:
        """What was written, line by line, with nothing in it that could break or forge one."""
        text = os.pread(self.fd, _DUMP_BYTES, 0).partition(b"\0")[0].decode(errors="replace")
        return [one_line(line.rstrip()) for line in text.splitlines() if not _DROPPED.match(line)][:_LINES_MOST]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()  # of a worker that could not be started


class Overseer:
    """The master's: ends workers that hang."""

    def __init__(self) -> None:
        self._aborted: dict[EdgeWorker, float] = {}

    def hanging(self, workers: Iterable["EdgeWorker"]) -> Iterator[tuple["EdgeWorker", signal.Signals, float]]:
        """Those that have shown no sign of life for too long: what they are to be sent, and for how many seconds."""
        now = time.monotonic()
        members = list(workers)
        self._aborted = {worker: at for worker, at in self._aborted.items() if worker in members}
        for worker in members:
            silent = worker.silent_for()
            if silent <= worker.cfg.timeout:
                continue
            if worker not in self._aborted:
                self._aborted[worker] = now
                yield worker, signal.SIGABRT, silent
            elif now - self._aborted[worker] >= ABORT_SECONDS:
                self._aborted[worker] = math.inf
                yield worker, signal.SIGKILL, silent


def expect_heartbeat(timeout: float) -> None:
    """In the worker, at its start and at each beat: the kernel ends it when none follows. It does so even when code of
    a policy never returns and the master, who would, is dead: such a worker would hold its sockets, and clients would
    wait there."""
    signal.setitimer(signal.ITIMER_REAL, timeout + ALARM_SECONDS)
