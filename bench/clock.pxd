"""A clock that is finer than the loop's own timers."""

from cext.net.loop cimport Watcher

cdef class Clock(Watcher):
    """Calls tick() every `us` microseconds, within the turns of the loop."""
    cdef object tick
