"""Work beside a worker's loop, in a thread, for what takes longer than a turn may.

The loop and the thread share the interpreter: the loop gives it away while it waits for events, and gets it back within
the switch interval, unless the thread is in one long call of C. What the thread does comes in short calls therefore.
"""

import sys
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

SWITCH_SECONDS: Final = 0.0005
"""For which the thread keeps the interpreter at most, while the loop waits for it."""


class Loop(Protocol):
    """What wakes the loop."""

    def call_soon_from_thread(self, callback: Callable[[], None]) -> None: ...


class Aside:
    """One job at a time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.busy = False

    def start(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """done(what the job gave, what it raised) is called by the loop. Not while `busy`. RuntimeError when there is
        no thread to be had."""
        sys.setswitchinterval(SWITCH_SECONDS)
        threading.Thread(target=self._run, args=(job, done), name="aside", daemon=True).start()
        self.busy = True  # until the loop hears of its end, which is later than now

    def _run(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = job()
        except BaseException as e:
            error = e

        def end() -> None:
            self.busy = False
            done(result, error)

        self._loop.call_soon_from_thread(end)
