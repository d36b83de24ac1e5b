"""asyncio as a guest of the loop, so that hooks may use any asyncio library while the data plane never waits.

The guest's selector is an epoll of its own; that epoll's descriptor is watched by ours. When it is
ready, or the guest's nearest timer is due, or something was scheduled, one iteration of the guest is
run (3.4 us when it has nothing to do: so only then). A coroutine's first step is run at once, without
an iteration: most hooks find what they look for in memory.
"""

import asyncio
import logging
import selectors
import sys
import threading
from asyncio.events import _get_running_loop, _set_running_loop

from cpython.ref cimport PyObject
from libc.math cimport ceil
from libc.stdint cimport uint32_t, uint64_t

from cext.lib.linux cimport EPOLLIN
from cext.net.loop cimport Loop

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long id, PyObject *exc)

cdef enum:
    SAMPLES = 4             # looks in the time of a limit
    SAMPLE_LEAST_MS = 25
    ITERATIONS = 4          # of the guest, in one turn of the loop
    CLOSING_S = 1           # for cancelled tasks to clean up

FAR = 86400.0       # seconds; a timer behind this is looked at again by then
RETRY = 0.001       # seconds
SPARED = ("asyncio", "selectors", "edge")   # packages that are not interrupted: others depend on what they keep


cdef class Watchdog:
    """Watchdog(limit_ms, exception type): until close().

    A thread of its own looks now and then whether the same call still runs: the calls pay for a counter, and no clock is
    read. What has been running for `limit_ms` (to a quarter more, or 25 ms) gets the exception between two
    bytecodes, and again after as long if it goes on; a call that waits in C is interrupted once it is back. Where it is in
    asyncio's own code just then, it is interrupted a moment later, or after as long again: a task whose step was lost there
    would never end.
    """

    def __init__(self, int limit_ms, late):
        self.limit_ms = limit_ms
        self.late = late
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, name="hook watchdog", daemon=True)
        self.thread.start()

    def _look(self):
        cdef uint64_t seen = 0
        cdef int times = 0
        cdef bint due = False
        while not self.ended.wait(RETRY if due else self.pause_ms() / 1000.0):
            least = max(self.limit_ms / <double> self.pause_ms(), 1.0)
            if self.inside == 0 or self.calls != seen:
                seen = self.calls
                times = 0
                due = False
                continue
            times += 1
            due = times >= least
            # The interpreter's lock is ours from the last condition on: the call cannot end meanwhile.
            if due and (self.may_interrupt() or times > least + self.limit_ms) and self.inside and self.calls == seen:
                times = 0
                due = False
                self.fired = True
                PyThreadState_SetAsyncExc(self.ident, <PyObject *> self.late)

    cdef int pause_ms(self) noexcept:
        return max(self.limit_ms // SAMPLES, <int> SAMPLE_LEAST_MS)

    cdef bint may_interrupt(self):
        """Whether the thread is in code that nobody else depends on. A frame that has given the interpreter's lock away is
        the one that gets the exception."""
        frame = sys._current_frames().get(self.ident)
        return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] not in SPARED

    cdef void disarm(self) noexcept:
        """The call is over: an exception that has not come yet must not come to somebody else."""
        self.fired = False
        PyThreadState_SetAsyncExc(self.ident, NULL)

    def close(self):
        self.ended.set()
        self.thread.join()


cdef class AsyncGuest(Watcher):
    """AsyncGuest(loop, watchdog=None): to be made in the loop's thread, and closed there."""

    def __init__(self, Loop loop, Watchdog watchdog=None):
        self.loop = loop
        self.watchdog = watchdog
        self.selector = selectors.EpollSelector()
        self.aio = asyncio.SelectorEventLoop(self.selector)
        self.fd = self.selector.fileno()
        loop.exact = self
        if loop.register(self, EPOLLIN) < 0:
            raise OSError("the asyncio guest cannot be watched")

    def run_coroutine(self, coroutine, done):
        """Starts the coroutine, up to where it waits -> its task; done(task) when it has ended."""
        task = self.start(coroutine)
        task.add_done_callback(done)
        self.poke()
        return task

    cdef object start(self, object coroutine):
        task = self.aio.create_task(coroutine)
        if _get_running_loop() is not None:
            return task             # asked for by another task: asyncio runs one at a time
        first = self.aio._ready.pop()
        _set_running_loop(self.aio)
        if self.watchdog is not None:
            self.watchdog.enter()
        try:
            first._run()
        except BaseException:       # asyncio lets SystemExit and KeyboardInterrupt through: the task has it too
            pass
        finally:
            if self.watchdog is not None:
                self.watchdog.leave()
            _set_running_loop(None)
            self.poke()
        return task

    cdef void poke(self) noexcept:
        cdef double due
        timers = self.aio._scheduled
        if self.aio._ready and not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._scheduled_iteration)
        if timers:
            # By the clock that both loops have, not from now on: or who pokes it often would put it off for ever.
            due = min(timers[0].when(), self.aio.time() + FAR)
            self.loop.exact_due = <uint64_t> ceil(due * 1000)
        else:
            self.loop.exact_due = 0

    cdef void on_event(self, uint32_t events) noexcept:
        self.iterate()

    cdef void on_timer(self, int kind) noexcept:
        self.iterate()

    def _scheduled_iteration(self):
        self.scheduled = False
        self.iterate()

    cdef void iterate(self) noexcept:
        if self.watchdog is not None:
            self.watchdog.enter()
        try:
            # What ran has made others ready, most often: a future a task, the task its callback.
            for _ in range(ITERATIONS):
                self.aio.call_soon(self.aio.stop)
                self.aio.run_forever()
                if not self.aio._ready:
                    break
        except BaseException as e:  # as in start(); or the watchdog's, outside of any task
            logging.getLogger("asyncio").warning("the guest's turn was cut short by %r", e)
        finally:
            if self.watchdog is not None:
                self.watchdog.leave()
        self.poke()

    def close(self):
        """Cancels what still runs, lets it clean up for a moment, and gives the guest's descriptors back."""
        self.loop.exact_due = 0
        self.loop.exact = None
        self.loop.unregister(self)
        tasks = asyncio.all_tasks(self.aio)
        for task in tasks:
            task.cancel()
        if tasks:
            self.end_tasks(tasks)
        self.aio.close()

    cdef void end_tasks(self, object tasks) noexcept:
        until = self.aio.time() + CLOSING_S
        if self.watchdog is not None:
            self.watchdog.enter()
        while tasks and self.aio.time() < until:
            try:
                self.aio.run_until_complete(all_done(tasks, until - self.aio.time()))
            except BaseException:       # as in iterate()
                pass
            tasks = [task for task in tasks if not seen_done(task)]
        if self.watchdog is not None:
            self.watchdog.leave()


async def all_done(tasks, seconds):
    await asyncio.wait(tasks, timeout=seconds)


def seen_done(task):
    """Whether it is; what it raised has been looked at then: asyncio need not complain."""
    if task.done() and not task.cancelled():
        task.exception()
    return task.done()
