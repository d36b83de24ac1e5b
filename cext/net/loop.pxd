"""The event loop: epoll, edge-triggered, with a timer wheel. One thread, one loop."""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from cext.base.stats cimport LoopStats
from cext.base.timers cimport TimerOwner, TimerWheel

cdef class Loop

cdef class Watcher(TimerOwner):
    """Something with a file descriptor in the loop. The loop holds a reference while it is registered."""
    cdef Loop loop
    cdef int fd                         # -1: none
    cdef bint registered
    cdef void on_event(self, uint32_t events) noexcept
    cdef bint turn_end_due              # on_turn_end is to be called
    cdef void on_turn_end(self) noexcept

cdef class Loop:
    cdef int epfd
    cdef readonly TimerWheel timers
    cdef readonly uint64_t now          # ms, monotonic; read once a turn
    cdef uint64_t now_us
    cdef uint64_t woken_us              # when this turn began
    cdef LoopStats *stats               # where turns are counted; NULL: nowhere
    cdef object stats_owner             # keeps that
    cdef PyObject **watchers            # by file descriptor; NULL: none
    cdef uint32_t *instances            # by file descriptor; raised at each registration (stale events differ)
    cdef int table_size
    cdef int watching                   # how many are registered
    cdef uint64_t exact_due             # ms; 0: not armed. The one timer that does not wait for a tick of the wheel:
    cdef TimerOwner exact               # that of asyncio, where pauses are short and many
    cdef bint stopping
    cdef object wake_read
    cdef object wake_write
    cdef list deferred                  # callables for the end of this turn
    cdef list unfinished                # watchers that gave way to others and go on in the next turn
    cdef int register(self, Watcher w, uint32_t events) noexcept
    cdef void unregister(self, Watcher w) noexcept
    cdef void forget(self, Watcher w) noexcept
    cdef int change(self, Watcher w, uint32_t events) noexcept nogil
    cdef list ended                     # objects that were closed in this turn
    cdef void keep_until_turn_ends(self, object o) noexcept
    cdef void again(self, Watcher w) noexcept
    cdef list ending                    # watchers that gather what they have to send until the turn ends
    cdef void at_turn_end(self, Watcher w) noexcept
    cdef void read_clock(self) noexcept nogil
    cdef int grow(self, int fd) noexcept
    cdef int wait_ms(self) noexcept nogil
    cdef int turn(self) except -1
