"""A process that another one keeps: when it may start, whether it lives, and how long to wait when it does not last."""

import contextlib
import os
import select
import signal
import socket
import time
from typing import Final

from edge.backoff import Backoff

STEADY_SECONDS: Final = 60.0
"""After which an end is a first one again."""


class Child:
    """One at a time. The wait before the next grows from `first` to `most` seconds while they do not last."""

    def __init__(self, first: float, most: float) -> None:
        self._backoff = Backoff(first, most)
        self._pidfd = -1
        self._started = 0.0
        self.pid: int | None = None
        """None while it does not run."""
        self.start_at = 0.0
        """The earliest moment of the next start (monotonic)."""

    def may_start(self) -> bool:
        return self.pid is None and time.monotonic() >= self.start_at

    def fork(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[bool, socket.socket]:
        """Whether this is the child, and one's own end of the line between it and its parent. Raises OSError, when
        there is none; another one is due at `start_at`."""
        try:
            return self._fork(kind)
        except OSError:
            self._put_off()
            raise

    def _fork(self, kind: socket.SocketKind) -> tuple[bool, socket.socket]:
        own, far = socket.socketpair(socket.AF_UNIX, kind)
        with contextlib.ExitStack() as undone:
            undone.callback(own.close)
            undone.callback(far.close)
            pid = os.fork()
            if pid:
                undone.callback(os.kill, pid, signal.SIGKILL)  # nobody could tell when it ends
                self._pidfd = os.pidfd_open(pid)
                self.pid, self._started = pid, time.monotonic()
            undone.pop_all()
        (far if pid else own).close()
        return pid == 0, own if pid else far

    def has_ended(self) -> bool:
        """Whether it ran and does no more: told once. Another one is due at `start_at`."""
        if self.pid is None or not _readable(self._pidfd):
            return False
        self.forget()
        if time.monotonic() - self._started > STEADY_SECONDS:
            self._backoff.succeeded()
        self._put_off()
        return True

    @property
    def wait(self) -> float:
        """Seconds until the next start."""
        return max(0.0, self.start_at - time.monotonic())

    def anew(self) -> None:
        """The next is another one: how the ones before it ended does not matter."""
        self.start_at = 0.0
        self._backoff.succeeded()

    def kill(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.forget()

    def await_end(self, seconds: float) -> None:
        """At most so long."""
        if self.pid is not None:
            _readable(self._pidfd, seconds)

    def forget(self) -> None:
        """Lets go of it, whether it lives or not; also in another process that was forked."""
        if self.pid is not None:
            os.close(self._pidfd)
            self.pid, self._pidfd = None, -1

    def _put_off(self) -> None:
        self.start_at = time.monotonic() + self._backoff.failed()


def _readable(fd: int, seconds: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
