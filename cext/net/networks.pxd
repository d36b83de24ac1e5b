"""A set of IP networks: who is meant by them."""

from libc.stdint cimport uint8_t

from cext.net.address cimport Peer

cdef struct Network:
    uint8_t ip[16]
    uint8_t v6
    uint8_t bits                # of its prefix

cdef class Networks:
    cdef Network *networks
    cdef size_t n
    cdef bint has(self, const Peer *peer) noexcept nogil
