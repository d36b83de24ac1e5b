"""Room for what is needed more: idle connections are closed, those of clients before those to upstreams, and those that
have been idle longest first.

Nothing is kept in order for this, which would cost every connection memory: the loop's table is looked through, which
takes some 10 ns for each connection, and up to EVICT_AT_ONCE are closed then.
"""

import os
import resource

from libc.stdint cimport uint64_t

from cext.net.loop cimport Watcher
from cext.proxy.context cimport STATE_IDLE, Context, Relief
from cext.proxy.downstream cimport Downstream
from cext.proxy.listener_settings cimport ListenerSettings
from cext.proxy.upstream cimport LOST_CLOSED, UpstreamConnection

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t pad)

cdef enum:
    EVICT_AT_ONCE = 32          # at most; of those that are idle a sixteenth
    UPSTREAMS_AT_ONCE = 4
    IN_VAIN_MS = 20             # after a look that found nothing: a flood of connections must not make one look each
    SPELL_GAP_MS = 10000        # want that comes back sooner belongs to the same spell, which is told once

PAGE = os.sysconf("SC_PAGE_SIZE")


cdef struct Oldest:
    int n, most
    int fd[EVICT_AT_ONCE]       # the oldest first
    uint64_t since[EVICT_AT_ONCE]


cdef void note(Oldest *o, int fd, uint64_t since) noexcept nogil:
    """Enters one that is idle since then, if it is among the oldest."""
    cdef int i
    if o.n == o.most:
        if since >= o.since[o.n - 1]:
            return
        o.n -= 1
    i = o.n
    while i and o.since[i - 1] > since:
        o.since[i] = o.since[i - 1]
        o.fd[i] = o.fd[i - 1]
        i -= 1
    o.since[i] = since
    o.fd[i] = fd
    o.n += 1


cdef class Pressure(Relief):
    """Pressure(context, memory_limit): bytes of memory that the worker may have of its own; 0: no limit.

    check() is to be called every second: it looks at the memory, and at the limit of open files.
    """

    def __init__(self, Context ctx, uint64_t memory_limit):
        self.ctx = ctx
        self.limit_memory(memory_limit)
        self.look_at_files()

    def limit_memory(self, uint64_t limit):
        if limit and self.statm is None:
            self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self.memory_limit = limit

    def close(self):
        if self.statm is not None:
            os.close(self.statm)
            self.statm = None
            self.memory_limit = 0

    def check(self):
        self.look_at_files()
        if self.memory_limit:
            self.look_at_memory()

    def look_at_files(self):
        """Some are kept for upstreams' connections: without those, clients could be accepted but not served."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            limit = 1 << 30
        self.ctx.counters.descriptors = self.ctx.loop.watching
        self.ctx.counters.descriptors_limit = limit
        self.ctx.high_fd = limit - min(max(limit // 16, 4), 1024)

    def look_at_memory(self):
        """Each second that it is over the limit, an eighth of what is idle is closed."""
        cdef int rounds
        _, resident, shared, *_ = os.pread(self.statm, 100, 0).split()
        used = (int(resident) - int(shared)) * PAGE
        if used <= self.memory_limit:
            return
        self.tell(1, f"memory runs short ({used >> 20} of {self.memory_limit >> 20} MiB)")
        rounds = max(<int> (self.ctx.in_state[STATE_IDLE] // (8 * EVICT_AT_ONCE)), 1)
        while rounds and (self.evict_clients(None, EVICT_AT_ONCE) or self.evict_upstreams(EVICT_AT_ONCE)):
            rounds -= 1
        malloc_trim(0)

    cdef bint of_descriptors(self) noexcept:
        if not self.evict_clients(None, 0) and not self.evict_upstreams(UPSTREAMS_AT_ONCE):
            return False
        self.tell(0, "descriptors run short")
        return True

    cdef bint of_listener(self, object settings) noexcept:
        if self.ctx.loop.now < self.listeners_until:
            return False
        if self.evict_clients(<ListenerSettings> settings, 0):
            return True
        self.listeners_until = self.ctx.loop.now + IN_VAIN_MS
        return False

    cdef void tell(self, int what, str message) noexcept:
        if self.spell_until[what] <= self.ctx.loop.now:
            self.ctx.log("warning", f"{message}: idle connections are closed, those of clients first, the oldest first")
        self.spell_until[what] = self.ctx.loop.now + SPELL_GAP_MS

    cdef int evict_clients(self, ListenerSettings only, int most) noexcept:
        """Closes up to `most` (0: a fair share) -> how many."""
        cdef Oldest oldest
        cdef Downstream client
        cdef Watcher w
        cdef int fd, i
        cdef uint64_t idle = self.ctx.in_state[STATE_IDLE]
        if idle == 0:
            return 0
        oldest.n = 0
        oldest.most = most if most else min(max(<int> (idle // 16), 1), <int> EVICT_AT_ONCE)
        for fd in range(self.ctx.loop.table_size):
            if self.ctx.loop.watchers[fd] == NULL:
                continue
            w = <Watcher> self.ctx.loop.watchers[fd]
            if not isinstance(w, Downstream):
                continue
            client = <Downstream> w
            if client.state == STATE_IDLE and (only is None or client.settings.quota is only.quota):
                note(&oldest, fd, client.last_sealed)
        for i in range(oldest.n):
            client = <Downstream> self.ctx.loop.watchers[oldest.fd[i]]
            client.give_way()
        self.ctx.counters.idle_closed += oldest.n
        return oldest.n

    cdef int evict_upstreams(self, int most) noexcept:
        cdef Oldest oldest
        cdef UpstreamConnection c
        cdef Watcher w
        cdef int fd, i
        oldest.n = 0
        oldest.most = most
        if self.ctx.loop.now < self.upstreams_until:
            return 0
        for fd in range(self.ctx.loop.table_size):
            if self.ctx.loop.watchers[fd] == NULL:
                continue
            w = <Watcher> self.ctx.loop.watchers[fd]
            if not isinstance(w, UpstreamConnection):
                continue
            c = <UpstreamConnection> w
            if c.is_idle():
                note(&oldest, fd, c.idle.deadline)
        for i in range(oldest.n):
            c = <UpstreamConnection> self.ctx.loop.watchers[oldest.fd[i]]
            c.lose(LOST_CLOSED, 0)
        if oldest.n == 0:
            self.upstreams_until = self.ctx.loop.now + IN_VAIN_MS
        self.ctx.counters.upstream_idle_closed += oldest.n
        return oldest.n
