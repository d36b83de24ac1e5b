"""What the master's loop waits for: descriptors, moments, signals."""

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable


class Waiting:
    """Until something is to be done. Signals end a wait when `open` has been called."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._due = math.inf
        self._pipe: tuple[int, int] | None = None

    def open(self) -> None:
        """A pipe that every signal writes to, so that none comes unseen between a look and the wait."""
        read, write = self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.watch(read, lambda: _drain(read))

    def leave(self) -> None:
        """In another process."""
        signal.set_wakeup_fd(-1)
        for fd in self._pipe or ():
            os.close(fd)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """callback() in each wait in which the descriptor has something to read, or has ended."""
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """To be called before the descriptor is closed."""
        self._watched.pop(fd, None)

    def due(self, moment: float) -> None:
        """The next wait ends at that moment (monotonic) at the latest."""
        self._due = min(self._due, moment)

    def until(self, seconds: float) -> float:
        """The moment at which the next wait is to end, which is so many seconds away at most. What was due is
        forgotten."""
        moment = min(self._due, time.monotonic() + seconds)
        self._due = math.inf
        return moment

    def wait(self, until: float) -> None:
        poll = select.poll()
        for fd in self._watched:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(max(0, math.ceil((until - time.monotonic()) * 1000))):
            if fd in self._watched:  # one callback may end another's
                self._watched[fd]()


def _drain(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass
