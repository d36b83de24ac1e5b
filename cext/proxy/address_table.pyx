"""Counts by client address (see the .pxd).

A process changes its own share first when it adds, and last when it takes away: one that dies in between has a share that
is too high, never a count that stays for ever.
"""

import mmap
import os
import socket

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t edge_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline int edge_swap(uint64_t *p, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline uint32_t edge_share(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void edge_set_share(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    """
    uint64_t load "edge_load"(const uint64_t *p) noexcept nogil
    bint swap "edge_swap"(uint64_t *p, uint64_t old, uint64_t new) noexcept nogil
    uint32_t share "edge_share"(const uint32_t *p) noexcept nogil
    void set_share "edge_set_share"(uint32_t *p, uint32_t v) noexcept nogil

cdef enum:
    WAYS = 8                            # entries of a set: one cache line
    CONNECTION = 1                      # what counts, in an entry and in a share
    REQUEST = 1 << 16
    COUNT_MAX = 0xFFFF
    MAP_NORESERVE = 0x4000              # pages that nobody touches are not to count as memory either

NO_PLACE = 0xFFFFFFFF
NO_ROOM = 0xFFFFFFFE


cdef class AddressTable:
    """AddressTable(capacity=65536, columns=256): made before the fork, one for all processes.

    A process that counts joins with a column that no other living process has; `clear` gives back what a dead one held.
    """

    def __init__(self, int capacity=1 << 16, int columns=256):
        cdef Py_buffer view
        cdef size_t entries
        if capacity < WAYS or columns < 1:
            raise ValueError("a table has entries, and columns")
        self.sets = 1
        while self.sets * WAYS < <uint64_t> capacity:
            self.sets *= 2
        entries = self.sets * WAYS
        self.columns = columns
        self.memory = mmap.mmap(-1, entries * (sizeof(uint64_t) + columns * sizeof(uint32_t)),
                                flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        self.words = <uint64_t *> view.buf
        PyBuffer_Release(&view)         # the mapping lives as long as `memory`, which nobody else closes
        self.shares = <uint32_t *> (self.words + entries)
        self.own = self.shares
        # Which set an address goes to is secret: nobody can fill one on purpose.
        secret = os.urandom(sizeof(self.key))
        memcpy(self.key, <const char *> secret, sizeof(self.key))

    def join(self, int column):
        """This process counts in that column from now on."""
        if not 0 <= column < self.columns:
            raise ValueError(f"column {column}: there are {self.columns}")
        self.own = self.shares + column * self.sets * WAYS

    def clear(self, int column):
        """Takes off what a process held that is gone."""
        cdef uint32_t *held = self.shares + column * self.sets * WAYS
        cdef uint64_t place
        cdef uint64_t seen, connections, requests
        cdef uint32_t its
        if not 0 <= column < self.columns:
            raise ValueError(f"column {column}: there are {self.columns}")
        for place in range(self.sets * WAYS):
            its = share(held + place)
            if its == 0:
                continue
            while True:
                seen = load(self.words + place)
                connections = (seen & COUNT_MAX) - min(seen & COUNT_MAX, <uint64_t> its & COUNT_MAX)
                requests = (seen >> 16 & COUNT_MAX) - min(seen >> 16 & COUNT_MAX, <uint64_t> its >> 16)
                if swap(self.words + place, seen, seen >> 32 << 32 | requests << 16 | connections):
                    break
            set_share(held + place, 0)

    def counts(self, str address):
        """(connections, requests) of an IP address, for tests and for whoever looks on."""
        cdef Peer peer
        cdef uint64_t entry, where
        cdef int i
        set_peer(&peer, address)
        where = self.place_of(&peer)
        for i in range(WAYS):
            entry = load(self.words + (where & (self.sets - 1)) * WAYS + i)
            if entry >> 32 == where >> 32:
                return entry & COUNT_MAX, entry >> 16 & COUNT_MAX
        return 0, 0

    cdef uint64_t place_of(self, const Peer *peer) noexcept nogil:
        """The address's hash: fingerprint in the upper half, never 0; set in the lower."""
        cdef uint64_t h
        if not peer.v6:
            h = siphash(self.key, peer.ip, 4)
        elif is_mapped(peer.ip):
            h = siphash(self.key, peer.ip + 12, 4)
        else:
            h = siphash(self.key, peer.ip, 8)
        return h if h >> 32 else h | <uint64_t> 1 << 32

    cdef uint32_t enter(self, const Peer *peer, uint32_t limit) noexcept nogil:
        cdef uint64_t where, seen, old, new
        cdef uint64_t most = limit if 0 < limit < COUNT_MAX else COUNT_MAX
        cdef uint32_t first, place
        cdef int i
        if not peer.known:
            return NO_PLACE
        where = self.place_of(peer)
        first = <uint32_t> (where & (self.sets - 1)) * WAYS
        while True:
            place = NO_PLACE
            old = 0
            new = where >> 32 << 32 | CONNECTION
            for i in range(WAYS):
                seen = load(self.words + first + i)
                if seen >> 32 == where >> 32:
                    if seen & COUNT_MAX >= most:
                        return NO_ROOM if limit else NO_PLACE
                    place = first + i
                    old = seen
                    new = seen + CONNECTION
                    break
                if <uint32_t> seen == 0 and place == NO_PLACE:
                    place = first + i
                    old = seen
            if place == NO_PLACE:
                return NO_PLACE
            set_share(self.own + place, share(self.own + place) + CONNECTION)
            if swap(self.words + place, old, new):
                return place
            # Somebody was faster: look again, it may have been for the same address.
            set_share(self.own + place, share(self.own + place) - CONNECTION)

    cdef void leave(self, uint32_t place) noexcept nogil:
        if place != NO_PLACE:
            self.take(place, CONNECTION)

    cdef bint begin(self, uint32_t place, uint32_t limit) noexcept nogil:
        cdef uint64_t entry
        cdef uint64_t most = limit if 0 < limit < COUNT_MAX else COUNT_MAX
        set_share(self.own + place, share(self.own + place) + REQUEST)
        while True:
            entry = load(self.words + place)
            if entry >> 16 & COUNT_MAX >= most:
                set_share(self.own + place, share(self.own + place) - REQUEST)
                return 0
            if swap(self.words + place, entry, entry + REQUEST):
                return 1

    cdef void end(self, uint32_t place) noexcept nogil:
        self.take(place, REQUEST)

    cdef void take(self, uint32_t place, uint32_t one) noexcept nogil:
        cdef int at = 0 if one == CONNECTION else 16
        cdef uint64_t entry
        while True:
            entry = load(self.words + place)
            if entry >> at & COUNT_MAX == 0 or swap(self.words + place, entry, entry - one):
                break
        set_share(self.own + place, share(self.own + place) - one)


cdef inline bint is_mapped(const uint8_t *ip) noexcept nogil:
    """Whether it is an IPv4 address in IPv6's clothes, ::ffff:a.b.c.d: all of them have the same /64."""
    cdef int i
    for i in range(10):
        if ip[i]:
            return 0
    return ip[10] == 0xFF and ip[11] == 0xFF


cdef inline uint64_t rotated(uint64_t v, int by) noexcept nogil:
    return v << by | v >> (64 - by)


cdef inline void sip_rounds(uint64_t *v, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        v[0] += v[1]
        v[2] += v[3]
        v[1] = rotated(v[1], 13) ^ v[0]
        v[3] = rotated(v[3], 16) ^ v[2]
        v[0] = rotated(v[0], 32)
        v[2] += v[1]
        v[0] += v[3]
        v[1] = rotated(v[1], 17) ^ v[2]
        v[3] = rotated(v[3], 21) ^ v[0]
        v[2] = rotated(v[2], 32)


cdef uint64_t siphash(const uint64_t *key, const uint8_t *p, int n) noexcept nogil:
    """SipHash-2-4 (Aumasson and Bernstein, 2012) of n <= 8 bytes."""
    cdef uint64_t v[4]
    cdef uint64_t block = 0
    cdef uint64_t last = <uint64_t> n << 56
    v[0] = key[0] ^ 0x736F6D6570736575ULL
    v[1] = key[1] ^ 0x646F72616E646F6DULL
    v[2] = key[0] ^ 0x6C7967656E657261ULL
    v[3] = key[1] ^ 0x7465646279746573ULL
    memcpy(&block, p, n)
    if n == 8:
        v[3] ^= block
        sip_rounds(v, 2)
        v[0] ^= block
    else:
        last |= block
    v[3] ^= last
    sip_rounds(v, 2)
    v[0] ^= last
    v[2] ^= 0xFF
    sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef int set_peer(Peer *peer, str address) except -1:
    """From an IP address; OSError when it is none."""
    cdef bytes ip
    memset(peer, 0, sizeof(Peer))
    peer.v6 = ":" in address
    peer.known = True
    ip = socket.inet_pton(socket.AF_INET6 if peer.v6 else socket.AF_INET, address)
    memcpy(peer.ip, <const char *> ip, len(ip))
    return 0


# ---- Python faces, for tests

def hashed(bytes key, bytes data):
    """SipHash-2-4 of at most eight bytes."""
    cdef uint64_t words[2]
    if len(key) != sizeof(words) or len(data) > 8:
        raise ValueError("a key has 16 bytes, the data at most 8")
    memcpy(words, <const char *> key, sizeof(words))
    return siphash(words, <const uint8_t *> <const char *> data, <int> len(data))


cdef class Visitor:
    """Visitor(table, address): a client, as the data plane counts it."""

    cdef AddressTable table
    cdef Peer peer

    def __init__(self, AddressTable table, str address):
        self.table = table
        set_peer(&self.peer, address)

    def enter(self, uint32_t limit=0):
        """A place; None when there is no room in the table, False over the limit."""
        place = self.table.enter(&self.peer, limit)
        return None if place == NO_PLACE else False if place == NO_ROOM else place

    def leave(self, uint32_t place):
        self.table.leave(place)

    def begin(self, uint32_t place, uint32_t limit=0):
        return bool(self.table.begin(place, limit))

    def end(self, uint32_t place):
        self.table.end(place)
