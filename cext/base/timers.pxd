"""Timers: a hashed wheel, lazy about deadlines that move later (most do: a timeout is pushed back at every byte)."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

cdef enum:
    WHEEL_SLOTS = 1024      # power of two
    WHEEL_TICK_SHIFT = 4    # a tick is 16 ms; one turn of the wheel 16.4 s


cdef struct Timer:
    Timer *next             # NULL: not linked
    Timer *prev
    uint64_t deadline       # ms of the loop's clock; 0: not armed
    uint64_t tick           # the tick it is linked under (at or before the deadline's)
    PyObject *owner         # borrowed: the TimerOwner that holds this struct, and disarms it before it goes
    int kind                # the owner's own: which of its timers this is


cdef class TimerOwner:
    cdef void on_timer(self, int kind) noexcept


cdef inline void timer_init(Timer *t, TimerOwner owner, int kind) noexcept:
    t.next = NULL
    t.prev = NULL
    t.deadline = 0
    t.owner = <PyObject *> owner
    t.kind = kind


cdef class TimerWheel:
    cdef Timer slots[WHEEL_SLOTS]           # list heads
    cdef uint64_t occupied[WHEEL_SLOTS >> 6]  # a bit for each slot that may be non-empty
    cdef uint64_t tick                      # every tick up to this one has been expired
    cdef void start(self, uint64_t now) noexcept nogil
    cdef void arm(self, Timer *t, uint64_t deadline) noexcept nogil
    cdef void disarm(self, Timer *t) noexcept nogil
    cdef int wait_ms(self, uint64_t now) noexcept nogil
    cdef void expire(self, uint64_t now) noexcept
