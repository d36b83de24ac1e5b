"""One HTTP/1.1 connection to a backend: sends request bytes, reads responses."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes, Chunk
from cext.base.timers cimport Timer, TimerOwner
from cext.http.h1_reader cimport BodyReader
from cext.http.message cimport Head
from cext.net.address cimport Address
from cext.net.stream cimport Stream
from cext.proxy.context cimport Context

cdef enum UpstreamLoss:
    LOST_CONNECT = 1            # no connection came about: nothing was sent
    LOST_CLOSED = 2             # ended or broke before the response was whole
    LOST_BAD_RESPONSE = 3       # what came is no HTTP/1.1 response

cdef enum UpstreamPhase:
    UPSTREAM_IDLE = 0           # in the pool: whatever comes now ends it
    UPSTREAM_HEAD = 1           # waiting for (the rest of) a response head
    UPSTREAM_BODY = 2

cdef class Upstream

cdef class UpstreamUser(TimerOwner):
    """Who a connection works for: an exchange, or its server's pool while it is idle."""
    cdef void on_connected(self, Upstream u) noexcept
    cdef void on_lost(self, Upstream u, int loss, int error) noexcept
    cdef void on_interim(self, Upstream u, const Head *h) noexcept
    cdef void on_head(self, Upstream u, const Head *h) noexcept
    cdef void on_data(self, Upstream u, const uint8_t *p, size_t n) noexcept
    cdef void on_chunk(self, Upstream u, Chunk *c) noexcept
    cdef void on_end(self, Upstream u) noexcept
    cdef void on_batch(self, Upstream u) noexcept
    cdef void on_drained(self, Upstream u) noexcept

cdef class Upstream(Stream):
    cdef Context ctx
    cdef UpstreamUser user
    cdef UpstreamUser home          # the Server in the pool
    cdef bint connecting
    cdef bint reused                # has answered a request before
    cdef bint paused                # its user's client is slow: do not read
    cdef bint pumping
    cdef bint keep_alive            # after the current response
    cdef bint answered              # a byte of the current response has come
    cdef int phase                  # UpstreamPhase
    cdef int request_method
    cdef uint32_t scanned           # of a head that is not whole yet
    cdef Bytes pending              # read, but not yet enough to parse
    cdef BodyReader body
    cdef Timer idle
    cdef int open(self, const Address *where) noexcept
    cdef void begin(self, UpstreamUser user, int request_method) noexcept
    cdef int queue(self, const uint8_t *p, size_t n) noexcept nogil
    cdef void flush(self) noexcept
    cdef void resume(self) noexcept
    cdef void park(self, uint64_t deadline) noexcept
    cdef void drop(self) noexcept
    cdef void pump(self) noexcept
    cdef ssize_t read_scratch(self) noexcept
    cdef ssize_t read_chunks(self) noexcept
    cdef void consume(self, const uint8_t *p, size_t n) noexcept
    cdef void finish_response(self) noexcept
    cdef void lose(self, int loss, int error) noexcept
    cdef void ended(self, int error) noexcept
