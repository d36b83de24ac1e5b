"""The access log: one JSON line per request, formatted in C, handed over in batches."""

from libc.stdint cimport uint8_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer, TimerOwner
from cext.net.loop cimport Loop

cdef class AccessLog(TimerOwner):
    cdef Loop loop
    cdef object sink                # callable(bytes)
    cdef Bytes lines
    cdef Timer timer
    cdef void open_line(self) noexcept nogil
    cdef void text(self, const char *key, const void *p, size_t n) noexcept nogil
    cdef void number(self, const char *key, uint64_t v) noexcept nogil
    cdef void milliseconds(self, const char *key, uint64_t us) noexcept nogil
    cdef void boolean(self, const char *key, bint v) noexcept nogil
    cdef void key(self, const char *name) noexcept nogil
    cdef void close_line(self) noexcept
    cdef void flush_lines(self) noexcept
