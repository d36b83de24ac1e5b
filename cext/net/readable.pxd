"""A descriptor whose owner is Python code, in the loop."""

from cext.net.loop cimport Watcher

cdef class Readable(Watcher):
    cdef object callback                # None once it is closed
