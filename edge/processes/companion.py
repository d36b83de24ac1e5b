"""Processes beside the workers, which do what neither master nor workers should: without the master's privileges, and
with nothing of the workers' at stake.

The master keeps one while there is work for it, starts it again, later and later, when it dies, and starts another one
when the work changes. It ends with the master.
"""

import os
import signal
import socket
from collections.abc import Callable
from typing import Final, Protocol

from setproctitle import setproctitle

from edge.logs.errorlog import one_line
from edge.logs.logline import Log
from edge.processes import channel
from edge.processes.channel import Channel
from edge.processes.child import Child

RESTART_SECONDS: Final = (1.0, 60.0)
"""Until the next start, after a first death and at most."""


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
        self._child = Child(*RESTART_SECONDS)
        self.channel: Channel | None = None
        """The line to it, while it runs."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._child.pid

    def keep(self, work: Work | None) -> None:
        """To be called every now and then: sees to it that the process runs, if there is work."""
        if work != self._work:
            self.stop()
            self._work = work
            self._child.anew()
        if self._child.has_ended():
            self._hang_up()
            self._log("error", f"the process that {self._what} has ended; the next starts in {self._child.wait:.1f} s")
        if work is not None and self._child.may_start():
            self._start(work)

    def stop(self) -> None:
        """Ends it. It has nothing to lose."""
        self._child.kill()
        self._hang_up()

    def leave(self) -> None:
        """In another process: what is the master's of this one is closed."""
        self._child.forget()
        self._hang_up()

    def _hang_up(self) -> None:
        if self.channel:
            self.channel.close()
            self.channel = None

    def _start(self, work: Work) -> None:
        try:
            forked, line = self._child.fork()
        except OSError as e:
            wait = f"again in {self._child.wait:.1f} s"
            self._log("error", f"the process that {self._what} cannot be started: {e}; {wait}")
            return
        if not forked:
            self.channel = Channel(line, channel.WORKER_SAYS_MOST)
            return
        try:
            self._serve(work, line)
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
