"""asyncio as a guest of the loop, so that hooks may use any asyncio library while the data plane never waits.

The guest's selector is an epoll of its own; that epoll's descriptor is watched by ours. When it is
ready, or the guest's nearest timer is due, or something was scheduled, one iteration of the guest is
run (3.4 us when it has nothing to do: so only then).
"""

import asyncio
import selectors

from libc.stdint cimport uint32_t, uint64_t

from cext.base.timers cimport Timer, timer_init
from cext.lib.linux cimport EPOLLIN
from cext.net.loop cimport Loop, Watcher

FAR = 86400.0       # seconds; a timer behind this is looked at again by then


cdef class AsyncGuest(Watcher):
    """An asyncio event loop that runs inside the turns of a Loop."""

    cdef Timer timer
    cdef object aio
    cdef object selector
    cdef bint scheduled

    def __init__(self, Loop loop):
        self.loop = loop
        self.selector = selectors.EpollSelector()
        self.aio = asyncio.SelectorEventLoop(self.selector)
        self.fd = self.selector.fileno()
        timer_init(&self.timer, self, 0)
        if loop.register(self, EPOLLIN) < 0:
            raise OSError("the asyncio guest cannot be watched")

    def run_coroutine(self, coroutine, done):
        """Starts the coroutine at the end of this turn -> its task; done(task) when it has ended."""
        task = self.aio.create_task(coroutine)
        task.add_done_callback(done)
        self._schedule()
        return task

    cdef void on_event(self, uint32_t events) noexcept:
        self._iterate()

    cdef void on_timer(self, int kind) noexcept:
        self._iterate()

    def _schedule(self):
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._scheduled_iteration)

    def _scheduled_iteration(self):
        self.scheduled = False
        self._iterate()

    def _iterate(self):
        self.aio.call_soon(self.aio.stop)
        self.aio.run_forever()
        if self.aio._ready:
            self._schedule()
        timers = self.aio._scheduled
        if timers:
            delay = min(max(0.0, timers[0].when() - self.aio.time()), FAR)
            self.loop.timers.arm(&self.timer, self.loop.now + <uint64_t> (delay * 1000) + 1)
        else:
            self.loop.timers.disarm(&self.timer)

    def close(self):
        """Cancels what still runs, lets it clean up, and gives the guest's descriptors back."""
        self.loop.timers.disarm(&self.timer)
        self.loop.unregister(self)
        tasks = asyncio.all_tasks(self.aio)
        for task in tasks:
            task.cancel()
        if tasks:
            self.aio.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.aio.close()
