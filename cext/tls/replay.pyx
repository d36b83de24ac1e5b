"""Single use of early data across processes (see the .pxd).

What a register knows begins with it. Where tickets outlive it (hosts share their keys, or keep them over a restart) it
needs an identity that lasts, and then a barrier: a ClientHello that could have been taken before the register was
there is not fresh. Clocks that are set back would bring such ClientHellos to life again, and move the barrier.

A table of words in shared anonymous memory: each set of sixteen is two cache lines, and each word an entry of a 48-bit
fingerprint and the tick it was made in. Entering is one compare-and-swap, without a lock that a dying process could
keep. Nothing is ever removed: an entry that is old enough is overwritten.
"""

import mmap
import os

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from cext.crypto.hash_kdf cimport HASH_MAX, HASH_SHA256, cleanse, hmac_once

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t edge_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline int edge_swap(uint64_t *p, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t load "edge_load"(const uint64_t *p) noexcept nogil
    bint swap "edge_swap"(uint64_t *p, uint64_t old, uint64_t new) noexcept nogil

cdef enum:
    WAYS = 16                           # words of a set
    HEADER = 8                          # words in front of the first set: a cache line of its own
    STEP_BACK_MS = 1000                 # what processes may differ in the time they see, and clocks be slewed by
    TICKS_KEPT = 16                     # an entry's age, in ticks, until which it counts

# Answers, for Python
SEEN, FRESH, FULL, LATE, DOWN = REGISTER_SEEN, REGISTER_FRESH, REGISTER_FULL, REGISTER_LATE, REGISTER_DOWN

LAYOUT = 1                              # of a register's memory and state, for those who get it from another version

cdef uint64_t MOST = 1 << 32            # entries
cdef uint64_t TICK_MASK = 0xFFFF        # an entry: fingerprint << 16 | tick


cdef class ReplayRegister:
    """The interface: this base says of nothing that it is fresh."""

    cdef int enter_binder(self, const uint8_t *binder, size_t n) noexcept nogil:
        return REGISTER_SEEN

    cdef uint64_t barrier(self, uint64_t now) noexcept nogil:
        return 0

    @property
    def identity(self):
        return self.id[:REGISTER_ID_LENGTH]

    def enter(self, bytes binder not None):
        """Whether it was not there before; it is now."""
        return self.enter_binder(binder, len(binder)) == REGISTER_FRESH


cdef class SharedRegister(ReplayRegister):
    """SharedRegister(keeps, capacity, identity=None, since=0): made before the fork, one for all processes.

    `keeps`: milliseconds for which an entry counts, at least; a ClientHello must not be accepted for longer than that.
    `capacity`: entries it has room for in that time, at most (8 bytes each). When a set of it is full, what would go there
    is not fresh: the client then sends its data after the handshake.
    Processes that are there already get it by state() and its descriptor, and make it with of().
    `identity`: 8 bytes, for tickets of an earlier register whose place this one takes, and which nobody else may have at
    the same time; None: one that no other has had. `since`: the barrier, milliseconds since 1970.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, int keeps=20000, uint64_t capacity=1 << 19, bytes identity=None, uint64_t since=0):
        cdef bytes secret
        if keeps <= 0 or not WAYS <= capacity <= MOST or identity is not None and len(identity) != REGISTER_ID_LENGTH:
            raise ValueError("a register keeps entries for a while, and some of them, under a name of 8 bytes")
        self.keeps = keeps
        self.tick = max((keeps + TICKS_KEPT - 2) // (TICKS_KEPT - 1), 1)    # one less: a tick may have begun already
        self.sets = 1
        while self.sets * WAYS < capacity:
            self.sets *= 2
        self.fd = os.memfd_create("early data", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, (HEADER + self.sets * WAYS) * sizeof(uint64_t))
        self.map(self.fd)
        self.barred[0] = since
        # Which set a binder goes to is secret: nobody can fill one on purpose.
        secret = os.urandom(sizeof(self.key) + REGISTER_ID_LENGTH)
        memcpy(self.key, <const char *> secret, sizeof(self.key))
        if identity is None:
            identity = secret[sizeof(self.key):]
        memcpy(self.id, <const char *> identity, REGISTER_ID_LENGTH)

    def state(self):
        """What of() needs beside the descriptor; it holds a secret."""
        return self.keeps, self.tick, self.sets, self.key[:sizeof(self.key)], self.id[:REGISTER_ID_LENGTH]

    @staticmethod
    def of(int fd, tuple state, bint keep=False):
        """The register of another process; the descriptor stays its caller's, and with `keep` this one has another by
        which it can be passed on. OSError or ValueError when that fails."""
        cdef SharedRegister register = SharedRegister.__new__(SharedRegister)
        cdef bytes key, identity
        register.keeps, register.tick, register.sets, key, identity = state
        if len(key) != sizeof(register.key) or len(identity) != REGISTER_ID_LENGTH:
            raise ValueError("no register's state")
        memcpy(register.key, <const char *> key, sizeof(register.key))
        memcpy(register.id, <const char *> identity, REGISTER_ID_LENGTH)
        register.map(fd)
        if keep:
            register.fd = os.dup(fd)
        return register

    cdef int map(self, int fd) except -1:
        cdef Py_buffer view
        cdef uint64_t *header
        self.memory = mmap.mmap(fd, (HEADER + self.sets * WAYS) * sizeof(uint64_t))
        PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        header = <uint64_t *> view.buf
        self.latest, self.barred, self.silent, self.words = header, header + 1, header + 2, header + HEADER
        PyBuffer_Release(&view)         # the mapping lives as long as `memory`, which nobody else closes
        return 0

    @property
    def capacity(self):
        """Entries that it has words for."""
        return self.sets * WAYS

    @property
    def since(self):
        """The barrier, as it is now."""
        return load(self.barred)

    def raise_barrier(self, uint64_t since):
        """For all processes: what may have been taken until then, milliseconds since 1970, is not fresh."""
        raise_to(self.barred, since)

    def fall_silent(self):
        """Whether this process is the first to find that the register cannot be asked."""
        return swap(self.silent, 0, 1)

    def speak(self):
        """Whether it is the first to find, after that, that it can be."""
        return swap(self.silent, 1, 0)

    def __dealloc__(self):
        cleanse(self.key, sizeof(self.key))
        if self.fd >= 0:
            close(self.fd)

    cdef int enter_binder(self, const uint8_t *binder, size_t n) noexcept nogil:
        cdef uint8_t digest[HASH_MAX]
        cdef uint64_t where, entry
        cdef timespec now
        hmac_once(HASH_SHA256, self.key, sizeof(self.key), binder, n, digest)
        memcpy(&where, digest, sizeof(where))
        memcpy(&entry, digest + 8, sizeof(entry))
        clock_gettime(CLOCK_MONOTONIC, &now)
        entry = (entry & ~TICK_MASK) | ((<uint64_t> now.tv_sec * 1000 + now.tv_nsec // 1000000) // self.tick & TICK_MASK)
        return enter(self.words + (where & (self.sets - 1)) * WAYS, entry | 1 << 16)

    cdef uint64_t barrier(self, uint64_t now) noexcept nogil:
        cdef uint64_t latest = load(self.latest)
        if now + STEP_BACK_MS < latest:
            raise_to(self.barred, latest)        # what was taken until then may come a second time
        else:
            raise_to(self.latest, now)
        return load(self.barred)


cdef class AwaitedRegister(ReplayRegister):
    """AwaitedRegister(local, identity, key, remembers, deadline, most=1024): a record that several hosts share, kept where
    asking takes time. The handshake waits for the answer, and whoever drives it asks (TLS_WAIT_REGISTER).

    `local`: the SharedRegister that is asked first: what it has seen is no business of others. Its barrier is this
    register's. `identity`: 8 bytes, the same on all hosts. `key`: 32 bytes, likewise: the record holds names that are made
    with it. `remembers`: milliseconds for which the record must; longer than `local`, since hosts' clocks differ.
    `deadline`: milliseconds for which a handshake waits, `most`: how many may at once. ValueError for what cannot be.

    Where `up` is not set nobody waits: it is for the process that asks to set it, as soon as it knows that it can ask.
    """

    def __init__(self, SharedRegister local not None, bytes identity not None, bytes key not None, uint64_t remembers,
                 int deadline, int most=1024):
        if len(identity) != REGISTER_ID_LENGTH or len(key) != REGISTER_KEY_LENGTH:
            raise ValueError(f"an identity has {REGISTER_ID_LENGTH} bytes, a key {REGISTER_KEY_LENGTH}")
        if remembers < local.keeps or deadline <= 0 or most <= 0:
            raise ValueError("the record is kept as long as the local one at least; who waits does so for some time")
        self.local = local
        self.keeps = local.keeps
        self.remembers = remembers
        self.deadline = deadline
        self.most = most
        self.asked = []
        memcpy(self.id, <const char *> identity, REGISTER_ID_LENGTH)
        memcpy(self.key, <const char *> key, REGISTER_KEY_LENGTH)

    def __dealloc__(self):
        cleanse(self.key, sizeof(self.key))

    cdef int enter_binder(self, const uint8_t *binder, size_t n) noexcept nogil:
        cdef int found = self.local.enter_binder(binder, n)
        if found != REGISTER_FRESH:
            return found
        if not self.up:
            return REGISTER_DOWN
        return REGISTER_ASK if self.waiting < self.most else REGISTER_LATE

    cdef uint64_t barrier(self, uint64_t now) noexcept nogil:
        return self.local.barrier(now)

    cdef bytes name_of(self, const uint8_t *binder, size_t n):
        cdef uint8_t digest[HASH_MAX]
        hmac_once(HASH_SHA256, self.key, sizeof(self.key), binder, n, digest)
        return digest[:REGISTER_NAME_LENGTH].hex().encode()

    def name(self, bytes binder not None):
        """What a binder goes by in the record."""
        return self.name_of(binder, len(binder))


cdef class CallableRegister(ReplayRegister):
    """CallableRegister(ask, identity, keeps): a record that is kept elsewhere, for tests and programs of few connections.

    `ask(binder: bytes)` returns True for a binder it had not seen, and has entered it; anything else, or an exception,
    is not fresh. `identity`: 8 bytes; registers of the same identity hold the same record. `keeps`: milliseconds for
    which it remembers, at least. ValueError for what cannot be.
    """

    def __init__(self, ask not None, bytes identity not None, int keeps):
        if not callable(ask) or len(identity) != REGISTER_ID_LENGTH or keeps <= 0:
            raise ValueError(f"a register is a callable, {REGISTER_ID_LENGTH} bytes of identity, and a time")
        self.ask = ask
        self.keeps = keeps
        memcpy(self.id, <const char *> identity, REGISTER_ID_LENGTH)

    cdef int enter_binder(self, const uint8_t *binder, size_t n) noexcept nogil:
        with gil:
            return REGISTER_FRESH if self.answer(binder, n) else REGISTER_SEEN

    cdef bint answer(self, const uint8_t *binder, size_t n) noexcept:
        try:
            return self.ask(PyBytes_FromStringAndSize(<const char *> binder, n)) is True
        except Exception:
            return 0


cdef void raise_to(uint64_t *word, uint64_t value) noexcept nogil:
    cdef uint64_t seen = load(word)
    while seen < value and not swap(word, seen, value):
        seen = load(word)


cdef int enter(uint64_t *set_, uint64_t entry) noexcept nogil:
    """REGISTER_FRESH when the entry is ours alone."""
    cdef int place = -1
    cdef int i
    cdef uint64_t seen, old = 0
    while True:
        place = -1
        for i in range(WAYS):
            seen = load(set_ + i)
            if counts(seen, entry):
                if seen >> 16 == entry >> 16:
                    return REGISTER_SEEN
            elif place < 0:
                place = i
                old = seen
        if place < 0:
            return REGISTER_FULL
        if swap(set_ + place, old, entry):
            break
    # Another process, for which a tick ended earlier, may have found another place.
    for i in range(WAYS):
        seen = load(set_ + i)
        if i != place and counts(seen, entry) and seen >> 16 == entry >> 16:
            return REGISTER_SEEN
    return REGISTER_FRESH


cdef inline bint counts(uint64_t seen, uint64_t entry) noexcept nogil:
    """Whether an entry is still kept. Ticks wrap, and another process may be one ahead: the difference is signed."""
    cdef int age = <int16_t> ((entry & TICK_MASK) - (seen & TICK_MASK))
    return seen != 0 and -TICKS_KEPT <= age <= TICKS_KEPT
