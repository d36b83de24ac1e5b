"""The register that lets early data be taken once (RFC 9846, section 8.2)."""

from libc.stdint cimport int16_t, uint8_t, uint64_t

cdef enum:
    REGISTER_ID_LENGTH = 8
    REGISTER_KEY_LENGTH = 32
    REGISTER_NAME_LENGTH = 16

cdef enum Freshness:
    REGISTER_SEEN = 0       # it was there before, or that cannot be told
    REGISTER_FRESH = 1      # it was not, and is now
    REGISTER_FULL = 2       # there is no room for it
    REGISTER_ASK = 3        # not here; but who keeps the record is to be asked, and waited for
    REGISTER_LATE = 4       # it would take, or took, too long to find out
    REGISTER_DOWN = 5       # who keeps the record cannot be asked, or cannot be sure

cdef class ReplayRegister:
    cdef uint8_t id[REGISTER_ID_LENGTH]     # of the record kept: tickets carry it, and only theirs have early data
    cdef readonly uint64_t keeps            # milliseconds for which an entry is remembered at least

    cdef int enter_binder(self, const uint8_t *binder, size_t n) noexcept nogil
    # -> Freshness. Of those who enter one binder at the same time at most one gets REGISTER_FRESH.

    cdef uint64_t barrier(self, uint64_t now) noexcept nogil
    # The time (`now` is another: milliseconds since 1970) up to which a ClientHello may have been taken by someone whom
    # this register knows nothing of.

cdef class SharedRegister(ReplayRegister):
    cdef object memory                      # mmap, shared with other processes
    cdef readonly int fd                    # of it, where it can be had from, or -1
    cdef uint64_t *words
    cdef uint64_t *latest                   # the last time that was seen, and
    cdef uint64_t *barred                   # the barrier
    cdef uint64_t *silent                   # of an AwaitedRegister: some process has said that it is down
    cdef uint64_t sets                      # a power of two
    cdef uint64_t tick                      # milliseconds
    cdef uint8_t key[32]
    cdef int map(self, int fd) except -1

cdef class AwaitedRegister(ReplayRegister):
    cdef readonly SharedRegister local      # what this host has seen: asked first, and its barrier is ours
    cdef readonly uint64_t remembers        # milliseconds for which who is asked must remember
    cdef readonly int deadline              # milliseconds for which a handshake waits
    cdef readonly int most                  # handshakes that may wait at once, in this process
    cdef int waiting                        # that do
    cdef public bint up                     # of this process: who keeps the record answers
    cdef public object asker                # of this process: callable(list of what waits), once a turn; or None
    cdef list asked                         # for its next call
    cdef uint8_t key[REGISTER_KEY_LENGTH]
    cdef bytes name_of(self, const uint8_t *binder, size_t n)
    # What a binder goes by outside: 2 * REGISTER_NAME_LENGTH hex digits.

cdef class CallableRegister(ReplayRegister):
    cdef object ask                         # callable(binder: bytes) -> bool
    cdef bint answer(self, const uint8_t *binder, size_t n) noexcept
