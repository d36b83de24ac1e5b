"""Calls of functions that may be async (see the .pxd)."""

import inspect

from cpython.object cimport PyObject_CallObject

from cext.base.timers cimport timer_init

from cext.proxy.context import HookTimeout

cdef enum:
    # Much may follow from each, the rest of a handshake for one: who is served already shall not wait for all of them.
    SETTLED_AT_A_TIME = 4

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)


async def outcome_of(awaitable):
    return await awaitable


def settling(Context ctx):
    """What settles calls that have come to their end: a few, the others in the next turn."""
    def settle_some():
        cdef int i
        for i in range(min(len(ctx.outcomes), SETTLED_AT_A_TIME)):
            (<HookCall> ctx.outcomes.popleft()).settle()
        if ctx.outcomes:
            ctx.loop.call_soon(settle_some)
    return settle_some


cdef class HookCall(TimerOwner):
    cdef bint run(self, Context ctx, object hook, tuple arguments, int limit_ms) noexcept:
        self.ctx = ctx
        if ctx.watchdog is None:
            ctx.watch_hooks()
        ctx.watchdog.enter()
        try:
            value = PyObject_CallObject(hook, arguments)
        except BaseException as e:
            self.error = e
            return True
        finally:
            ctx.watchdog.leave()
        try:
            if not PyCoro_CheckExact(value):
                if not inspect.isawaitable(value):
                    self.value = value
                    return True
                value = outcome_of(value)
            task = ctx.need_guest().start(value)
            if task.done():
                self.take(task)
                return True
            task.add_done_callback(self._finished)
        except BaseException as e:
            self.error = e
            return True
        self.task = task
        timer_init(&self.timer, self, 0)
        if limit_ms:
            ctx.loop.timers.arm(&self.timer, ctx.loop.now + limit_ms)
        return False

    cdef void settled(self) noexcept:
        pass

    cdef void cancel(self) noexcept:
        task = self.task
        if task is None:
            return
        self.task = None
        self.ctx.loop.timers.disarm(&self.timer)
        task.cancel()
        self.ctx.guest.poke()

    cdef void on_timer(self, int kind) noexcept:
        self.cancel()
        self.error = HookTimeout("it took longer than it may")
        self.settled()

    def _finished(self, task):
        """In the guest's iteration: who asked is told when that is over."""
        if self.task is None:
            if not task.cancelled():
                task.exception()        # has been looked at: asyncio need not complain
            return
        self.ctx.loop.timers.disarm(&self.timer)
        if not self.ctx.outcomes:
            self.ctx.loop.call_soon(settling(self.ctx))
        self.ctx.outcomes.append(self)

    cdef void settle(self) noexcept:
        task = self.task
        if task is None:                # cancelled in between
            return
        self.task = None
        try:
            self.take(task)
        except BaseException as e:
            self.error = e
        self.settled()

    cdef int take(self, object task) except -1:
        if task.cancelled():
            self.error = HookTimeout("it was cancelled")
            return 0
        self.error = task.exception()
        if self.error is None:
            self.value = task.result()
        return 0
