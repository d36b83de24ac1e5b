"""A call of a user's function that may be async: a hook, or a signer somewhere else."""

from cext.base.timers cimport Timer, TimerOwner
from cext.proxy.context cimport Context

cdef class HookCall(TimerOwner):
    """One call, made once; who asks subclasses it and overrides `settled`."""
    cdef Context ctx
    cdef readonly object value          # what came of it,
    cdef readonly object error          # or the exception: the function's own, or HookTimeout
    cdef object task                    # while it waits
    cdef Timer timer

    cdef bint run(self, Context ctx, object hook, tuple arguments, int limit_ms) noexcept
    # Calls hook(*arguments), and awaits what it returns if that can be -> True: it is over, `value` and `error` stand. False:
    # it waits, and settled() comes later, never within run. limit_ms: for both together; 0: none, but the watchdog's.
    cdef void settled(self) noexcept
    # Overridden: the outcome is there. Called by the loop, with no other Python running.
    cdef void cancel(self) noexcept
    # Who asked has gone: a task is cancelled, and settled() will not come.
    cdef void settle(self) noexcept
    cdef int take(self, object task) except -1
