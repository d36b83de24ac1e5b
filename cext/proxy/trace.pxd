"""Traces: each request's span, and one for each server it is sent to, for somebody who exports them.

A Trace stands for a request; it knows nothing of exchanges (proxy/tracing does). Where it is sampled, what happened is
written down as it happens, and when the request is over it becomes one record of a batch:

    record    u16 length of the rest, u8 version (1), u8 flags (RECORD_*), u8 trace flags, trace id (16), span id (8),
              parent id (8), u64 start (ns since 1970), u64 duration, u64 until the first byte of the response (0: none),
              u64 bytes in, u64 bytes out, u16 status, u16 version of TLS, u8 of HTTP (10, 11, 20), u16 client port,
              vec8 client address, vec8 method, vec8 host, vec16 path, vec16 query, vec8 server name, vec8 route (its
              path), vec8 upstream, vec8 error, u8 number of attempts, then so many
    attempt   span id (8), u64 begin, u64 end, u64 connected (0: never), u64 first byte (0: none), u16 status (0: none),
              u8 flags (ATTEMPT_REUSED), vec8 server, vec8 error

Numbers are big-endian, times us since the request's start where nothing else is said, texts cut where they are too long.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer, TimerOwner
from cext.base.wire cimport Writer
from cext.http.trace_context cimport SPAN_ID, TraceFields
from cext.net.address cimport Peer
from cext.net.loop cimport Loop
from cext.net.networks cimport Networks

cdef enum:
    RECORD_VERSION = 1
    RECORD_MAX = 8448                   # bytes of a record
    RECORD_PARENT = 1                   # flags: the parent id is the client's,
    RECORD_PUSHED = 2                   # the request is a server push,
    RECORD_RESUMED = 4                  # of a resumed session,
    RECORD_EARLY = 8                    # on a connection whose early data was taken
    ATTEMPT_REUSED = 1                  # on a connection that had served before
    ATTEMPTS_MAX = 8                    # that are written down; later ones are not
    IDS = 4096                          # random bytes that are fetched at a time

cdef class TraceSettings:
    cdef uint64_t threshold             # a trace is sampled if the last 56 bits of its id are not below it
    cdef readonly bint trusts_all       # clients' contexts are believed,
    cdef readonly Networks trusted      # or those from here; None: nobody's
    cdef readonly bint query            # queries are told

cdef class Tracer(TimerOwner):
    cdef TraceSettings settings
    cdef Loop loop
    cdef object sink                    # callable(bytes) -> whether it took them
    cdef Bytes batch
    cdef uint32_t gathered              # records in the batch
    cdef Timer timer
    cdef uint64_t *sent                 # records: where they are counted
    cdef uint64_t *dropped
    cdef uint8_t ids[IDS]
    cdef size_t ids_left
    cdef bint trusts(self, const Peer *peer) noexcept nogil
    cdef int random_id(self, uint8_t *out, size_t n) noexcept nogil
    cdef bint samples(self, const uint8_t *trace_id) noexcept nogil
    cdef void add(self, const uint8_t *record, size_t n) noexcept
    cdef void flush_records(self) noexcept

cdef class Trace:
    """A request's place in its trace, for as long as the request lasts."""
    cdef Tracer tracer
    cdef TraceFields fields             # what goes upstream: the last attempt's span is the parent there
    cdef uint8_t span_id[SPAN_ID]       # of the request
    cdef uint8_t parent_id[SPAN_ID]     # of the client; zeros: it is the root
    cdef uint8_t sampled
    cdef uint8_t has_parent
    cdef uint8_t http                   # version of HTTP: 10, 11, 20
    cdef uint8_t attempting             # an attempt has begun and not ended
    cdef uint8_t n_attempts
    cdef uint64_t began                 # us of the loop's clock: the attempt
    cdef object server                  # bytes: whom it asks
    cdef Bytes attempts                 # those that are over, as the record has them
    cdef void begin_attempt(self, object server, uint8_t *head, uint64_t now_us) noexcept
    cdef void end_attempt(self, uint64_t started_us, uint64_t now_us, uint64_t connected_us, uint64_t first_byte_us,
                          bint reused, int status, bytes error) noexcept

cdef void write_u64(Writer *w, uint64_t v) noexcept nogil
cdef void write_text(Writer *w, const void *p, size_t n, size_t most) noexcept nogil
# vec8 of at most 255 bytes, vec16 where `most` is more.
