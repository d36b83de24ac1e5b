"""How many connections and requests each client address has at the moment, in all workers together.

A table of fixed size in shared memory. An entry is one word, changed by compare-and-swap: a fingerprint of the address
(an IPv6 address by its /64), and two counts. Beside it each process keeps, in a column of its own, what of each entry is
its: when it dies, the master takes that off again (`clear`). Nothing is locked, and nothing grows.

What it may get wrong: an address for which its set of WAYS entries has no room is not counted, so its limits do not hold
(with the default size that needs tens of thousands of addresses connected at a time); two addresses of one fingerprint
(one in 2^32 of those of a set) share their counts; and a process that is killed between the two steps of a change leaves
an entry one too low, until all that it counts has ended.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.net.address cimport Peer

cdef uint32_t NO_PLACE                  # of what is not counted
cdef uint32_t NO_ROOM                   # the limit is reached

cdef class AddressTable:
    cdef object memory                  # mmap, shared with the processes that are forked later
    cdef uint64_t *words                # fingerprint << 32 | requests << 16 | connections
    cdef uint32_t *shares               # for each column as many: requests << 16 | connections
    cdef uint32_t *own                  # this process's column
    cdef uint64_t sets                  # a power of two
    cdef readonly int columns
    cdef uint64_t key[2]

    cdef uint32_t enter(self, const Peer *peer, uint32_t limit) noexcept nogil
    # A connection has come -> the place of its address, NO_PLACE, or NO_ROOM when the address has `limit` (0: no limit).
    cdef void leave(self, uint32_t place) noexcept nogil
    cdef bint begin(self, uint32_t place, uint32_t limit) noexcept nogil
    # A request of one that has entered; 0 when the address has `limit` of them.
    cdef void end(self, uint32_t place) noexcept nogil
    cdef void take(self, uint32_t place, uint32_t one) noexcept nogil
    cdef uint64_t place_of(self, const Peer *peer) noexcept nogil
