"""HTTP/1.1 to a server: one request at a time, the next on the same connection where both ends allow it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.http.h1_reader cimport BodyReader
from cext.proxy.upstream cimport UpstreamConnection, UpstreamRequest, UpstreamUser

cdef enum UpstreamPhase:
    UPSTREAM_IDLE = 0           # in the pool, or answered: whatever comes now ends the connection
    UPSTREAM_HEAD = 1           # waiting for (the rest of) a response head
    UPSTREAM_BODY = 2
    UPSTREAM_TUNNEL = 3         # after a 101
    UPSTREAM_TUNNEL_ENDED = 4   # the server sends no more

cdef class H1Upstream

cdef class H1Request(UpstreamRequest):
    """Serves a connection's requests, one after the other."""
    cdef H1Upstream connection      # None once it is closed
    cdef bint chunked               # the request's content goes in chunked coding

cdef class H1Upstream(UpstreamConnection):
    cdef H1Request request
    cdef bint keep_alive            # after the current response
    cdef int phase                  # UpstreamPhase
    cdef bint unshown               # something was left because the request was paused
    cdef int interims               # 1xx heads that came before the current response
    cdef uint32_t scanned           # of a head that is not whole yet
    cdef BodyReader body
    cdef UpstreamRequest begin(self, UpstreamUser user, int method)
    cdef void park(self, uint64_t deadline) noexcept
    cdef int read_head(self, const uint8_t *p, size_t n, size_t *used) noexcept
    cdef void finish_response(self) noexcept
