"""A histogram with logarithmic buckets: any duration from 1 µs to an hour, within 1.6%, in 14 KiB."""

from libc.stdint cimport uint64_t

cdef enum:
    PRECISION_BITS = 6                  # 64 buckets per power of two
    SUBDIVISIONS = 1 << PRECISION_BITS
    VALUE_BITS = 32                     # larger values count as the largest
    BUCKETS = (VALUE_BITS - PRECISION_BITS + 1) * SUBDIVISIONS

cdef class Histogram:
    cdef uint64_t counts[BUCKETS]
    cdef readonly uint64_t total        # how many were recorded
    cdef readonly uint64_t sum
    cdef readonly uint64_t max
    cdef void record(self, uint64_t value) noexcept nogil
