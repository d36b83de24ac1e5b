"""The register that lets early data be taken once (RFC 9846, section 8.2)."""

from libc.stdint cimport int16_t, uint8_t, uint64_t

cdef enum:
    REGISTER_ID_LENGTH = 8

cdef class ReplayRegister:
    cdef uint8_t id[REGISTER_ID_LENGTH]     # of the record kept: tickets carry it, and only theirs have early data
    cdef readonly uint64_t keeps            # milliseconds for which an entry is remembered at least

    cdef bint fresh(self, const uint8_t *binder, size_t n) noexcept nogil
    # Enters the binder; 1 when it was not there before. 0 also when that cannot be told.

cdef class SharedRegister(ReplayRegister):
    cdef object memory                      # mmap, shared with the processes that are forked later
    cdef uint64_t *words
    cdef uint64_t sets                      # a power of two
    cdef uint64_t tick                      # milliseconds
    cdef uint8_t key[32]

cdef class CallableRegister(ReplayRegister):
    cdef object ask                         # callable(binder: bytes) -> bool
    cdef bint answer(self, const uint8_t *binder, size_t n) noexcept
