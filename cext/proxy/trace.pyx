"""Traces (see the .pxd)."""

cimport cython
from libc.string cimport memcpy

from cext.base.buffer cimport bytes_append, bytes_free
from cext.base.timers cimport timer_init
from cext.base.wire cimport write_bytes, write_u8, write_u16, write_u32, writer_init, written
from cext.crypto.hash_kdf cimport random_bytes
from cext.http.trace_context cimport TRACE_ID, write_hex

cdef enum:
    BATCH = 16 * 1024
    BATCH_MS = 100
    ID_BITS = 56                # of a trace id, the last ones: random in those of everybody (Level 2, section 5)
    ATTEMPT_MAX = 640

cdef uint64_t ID_SPACE = (<uint64_t> 1) << ID_BITS


cdef class TraceSettings:
    """TraceSettings(ratio, trust=True, False or networks [(IP, bits of the prefix), ...], query=False)"""

    def __init__(self, double ratio, trust=False, bint query=False):
        if not 0 <= ratio <= 1:
            raise ValueError(f"{ratio} is no ratio")
        self.threshold = ID_SPACE - <uint64_t> (ratio * ID_SPACE)
        self.trusts_all = trust is True
        self.trusted = Networks(trust) if trust is not True and trust is not False else None
        self.query = query


cdef class Tracer(TimerOwner):
    """Tracer(loop, sink): sink(bytes) gets whole records, at least every tenth of a second, and says whether it has taken
    them. One for each loop, as long as that: settings change."""

    def __cinit__(self, Loop loop, sink):
        self.loop = loop
        self.sink = sink
        timer_init(&self.timer, self, 0)

    def __dealloc__(self):
        bytes_free(&self.batch)

    cdef bint trusts(self, const Peer *peer) noexcept nogil:
        if self.settings.trusted is not None:
            return self.settings.trusted.has(peer)
        return self.settings.trusts_all

    cdef int random_id(self, uint8_t *out, size_t n) noexcept nogil:
        """n random bytes that are not all zero, n <= TRACE_ID; -1: there is no randomness."""
        cdef size_t i
        cdef uint8_t seen = 0
        while True:
            if self.ids_left < n:
                if random_bytes(self.ids, IDS) < 0:
                    return -1
                self.ids_left = IDS
            self.ids_left -= n
            memcpy(out, self.ids + self.ids_left, n)
            for i in range(n):
                seen |= out[i]
            if seen:
                return 0

    cdef bint samples(self, const uint8_t *trace_id) noexcept nogil:
        cdef uint64_t v = 0
        cdef int i
        for i in range(TRACE_ID - ID_BITS // 8, TRACE_ID):
            v = v << 8 | trace_id[i]
        return v >= self.settings.threshold

    cdef void add(self, const uint8_t *record, size_t n) noexcept:
        if bytes_append(&self.batch, record, n) < 0:
            if self.dropped != NULL:
                self.dropped[0] += 1
            return
        self.gathered += 1
        if self.batch.len >= BATCH:
            self.flush_records()
        elif self.timer.deadline == 0:
            self.loop.timers.arm(&self.timer, self.loop.now + BATCH_MS)

    cdef void flush_records(self) noexcept:
        cdef uint64_t *count = self.sent
        self.loop.timers.disarm(&self.timer)
        if self.batch.len == 0:
            return
        if not self.sink(self.batch.data[:self.batch.len]):
            count = self.dropped
        if count != NULL:
            count[0] += self.gathered
        self.batch.len = 0
        self.gathered = 0

    cdef void on_timer(self, int kind) noexcept:
        self.flush_records()


@cython.no_gc
@cython.freelist(64)
cdef class Trace:
    def __dealloc__(self):
        bytes_free(&self.attempts)

    cdef void begin_attempt(self, object server, uint8_t *head, uint64_t now_us) noexcept:
        """A server is about to be asked, with `head`: each attempt is a span of its own, the server's parent."""
        if not self.sampled:
            return
        self.attempting = True
        self.began = now_us
        self.server = server
        if self.n_attempts and self.tracer.random_id(self.fields.context.parent_id, SPAN_ID) == 0:
            write_hex(head + self.fields.at, self.fields.context.parent_id, SPAN_ID)

    cdef void end_attempt(self, uint64_t started_us, uint64_t now_us, uint64_t connected_us, uint64_t first_byte_us,
                          bint reused, int status, bytes error) noexcept:
        cdef uint8_t out[ATTEMPT_MAX]
        cdef Writer w
        cdef bytes server = self.server
        if not self.attempting:
            return
        self.attempting = False
        self.server = None
        if self.n_attempts == ATTEMPTS_MAX:
            return
        writer_init(&w, out, sizeof(out))
        write_bytes(&w, self.fields.context.parent_id, SPAN_ID)
        write_u64(&w, self.began - started_us)
        write_u64(&w, now_us - started_us)
        write_u64(&w, connected_us - started_us if connected_us else 0)
        write_u64(&w, first_byte_us - started_us if first_byte_us else 0)
        write_u16(&w, <uint16_t> status)
        write_u8(&w, ATTEMPT_REUSED if reused else 0)
        write_text(&w, <const char *> server, len(server), 255)
        if error is not None:
            write_text(&w, <const char *> error, len(error), 255)
        else:
            write_u8(&w, 0)
        if not w.overflow and bytes_append(&self.attempts, out, written(&w)) == 0:
            self.n_attempts += 1


cdef void write_u64(Writer *w, uint64_t v) noexcept nogil:
    write_u32(w, <uint32_t> (v >> 32))
    write_u32(w, <uint32_t> v)


cdef void write_text(Writer *w, const void *p, size_t n, size_t most) noexcept nogil:
    n = min(n, most)
    if most > 255:
        write_u16(w, <uint16_t> n)
    else:
        write_u8(w, <uint8_t> n)
    write_bytes(w, p, n)
