"""Processes beside the workers, which do what neither master nor workers should: without the master's privileges, and
with nothing of the workers' at stake.

The master keeps one while there is work for it, starts it again, later and later, when it dies, and starts another one
when the work changes. It ends with the master.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from setproctitle import setproctitle

from edge.backoff import Backoff
from edge.logs.errorlog import one_line
from edge.processes import channel
from edge.processes.channel import Channel

RESTART_SECONDS: Final = (1.0, 60.0)
"""Until the next start, after a first death and at most."""
STEADY_SECONDS: Final = 60.0
"""After which a death is a first one again."""

Log = Callable[[str, str], None]
"""Called with level and message."""


class Work(Protocol):
    """What a companion does. Equal works are the same: for another one, another process is started."""

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that it is done as."""

    def run(self, line: socket.socket) -> None:
        """In the process: until `line` ends, whose other end the master holds (`Companion.channel`)."""


class Companion:
    """The master's half. `title` is the process's, `what` says in the log what it does. `leave()` closes, in the
    process, what is the master's and the workers', and `become(user, group)` gives privileges up."""

    def __init__(
        self, title: str, what: str, log: Log, leave: Callable[[], None], become: Callable[[int, int], None]
    ) -> None:
        self.title = title
        self._what = what
        self._log = log
        self._leave = leave
        self._become = become
        self._work: Work | None = None
        self._pidfd = -1
        self._start_at = self._started = 0.0
        self._backoff = Backoff(*RESTART_SECONDS)
        self.pid: int | None = None
        """None while it does not run."""
        self.channel: Channel | None = None
        """The line to it, while it runs."""

    def keep(self, work: Work | None) -> None:
        """To be called every now and then: sees to it that the process runs, if there is work."""
        if work != self._work:
            self.stop()
            self._work, self._start_at = work, 0.0
            self._backoff.succeeded()
        if self.pid is not None and _has_ended(self._pidfd):
            self.stop()
            if time.monotonic() - self._started > STEADY_SECONDS:
                self._backoff.succeeded()
            wait = self._later()
            self._log("error", f"the process that {self._what} has ended; the next starts in {wait:.1f} s")
        if work is not None and self.pid is None and time.monotonic() >= self._start_at:
            self._start(work)

    def stop(self) -> None:
        """Ends it. It has nothing to lose."""
        if self.pid is None:
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        if self.channel:
            self.channel.close()
        self.pid = self.channel = None

    def leave(self) -> None:
        """In another process: what is the master's of this one is closed."""
        if self.pid is not None:
            os.close(self._pidfd)
            if self.channel:
                self.channel.close()

    def _later(self) -> float:
        """Puts the next start off -> by how many seconds."""
        wait = self._backoff.failed()
        self._start_at = time.monotonic() + wait
        return wait

    def _start(self, work: Work) -> None:
        own, far = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as e:
            own.close()
            far.close()
            wait = self._later()
            self._log("error", f"the process that {self._what} cannot be started: {e}; again in {wait:.1f} s")
            return
        if pid:
            far.close()
            self.pid, self._pidfd, self._started = pid, os.pidfd_open(pid), time.monotonic()
            self.channel = Channel(own, channel.WORKER_SAYS_MOST)
            return
        try:
            own.close()
            self._serve(work, far)
        except BaseException as e:
            self._log("error", one_line(f"the process that {self._what}: {type(e).__name__}: {e}"))
        finally:
            os._exit(1)

    def _serve(self, work: Work, line: socket.socket) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        setproctitle(self.title)
        self._leave()
        self._become(*work.owner)
        work.run(line)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
