"""Sets of networks (see the .pxd)."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cext.net.address cimport peer_parse


cdef class Networks:
    """Networks([(IP, bits of the prefix), ...])"""

    def __init__(self, networks):
        cdef Peer peer
        cdef size_t i
        free(self.networks)
        self.n = 0
        self.networks = <Network *> malloc(max(len(networks), 1) * sizeof(Network))
        if self.networks == NULL:
            raise MemoryError
        for i, (ip, bits) in enumerate(networks):
            if not peer_parse(&peer, ip.encode(), 0) or not 0 <= bits <= (128 if peer.v6 else 32):
                raise ValueError(f"{ip}/{bits} is no network")
            memcpy(self.networks[i].ip, peer.ip, 16)
            self.networks[i].v6 = peer.v6
            self.networks[i].bits = bits
            self.n = i + 1

    def __dealloc__(self):
        free(self.networks)

    cdef bint has(self, const Peer *peer) noexcept nogil:
        cdef size_t i
        for i in range(self.n):
            if self.networks[i].v6 == peer.v6 and same_prefix(self.networks[i].ip, peer.ip, self.networks[i].bits):
                return peer.known
        return False

    def __contains__(self, ip):
        """Whether an address (text) is in one of them."""
        cdef Peer peer
        return peer_parse(&peer, ip.encode(), 0) and self.has(&peer)


cdef bint same_prefix(const uint8_t *a, const uint8_t *b, int bits) noexcept nogil:
    cdef int i = 0
    while bits >= 8:
        if a[i] != b[i]:
            return False
        i += 1
        bits -= 8
    return bits == 0 or (a[i] ^ b[i]) >> (8 - bits) == 0
