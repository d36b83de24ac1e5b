"""Upstreams: a group of servers, and per server its connections: idle ones, the last used first, for HTTP/1.1; those that
requests share for HTTP/2."""

from libc.stdint cimport uint64_t

from cext.base.stats cimport Counted
from cext.net.address cimport Address
from cext.proxy.context cimport Context
from cext.proxy.h2_upstream cimport H2Request, H2Upstream
from cext.proxy.upstream cimport UpstreamConnection, UpstreamHome, UpstreamRequest, UpstreamUser

cdef class UpstreamGroup

cdef class Server(UpstreamHome):
    """One address of a group."""
    cdef readonly str label                 # "127.0.0.1:9000", "unix:/run/app.sock"
    cdef bytes label_bytes
    cdef Address address
    cdef list idle                          # of H1Upstream, oldest first
    cdef uint64_t avoid_until               # loop ms; a failed connect sends others elsewhere for a while
    cdef uint64_t refused                   # its place in the order of failed connects; higher is later
    cdef UpstreamGroup group
    cdef UpstreamRequest begin(self, Context ctx, UpstreamUser user, int method, bint fresh)
    cdef int close_idle(self) except -1

cdef class SharedServer(Server):
    """One that speaks HTTP/2. Requests for which there is no stream wait here, for as long as they may take to connect."""
    cdef list shared                        # of H2Upstream: those that take requests, or will once they are connected
    cdef object waiting                     # OrderedDict of H2Request, the oldest first
    cdef unsigned int expected              # streams of a connection, as the newest had it
    cdef H2Upstream widen(self, Context ctx)
    cdef unsigned int capacity(self) noexcept
    cdef unsigned int connecting(self) noexcept
    cdef void fail_waiting(self, int loss, int error, str reason) noexcept

cdef class UpstreamGroup(Counted):
    cdef readonly str name
    cdef readonly str protocol
    cdef readonly bint tunnels              # its servers may be asked to switch protocols
    cdef readonly list servers
    cdef readonly int max_idle
    cdef readonly int idle_ms
    cdef readonly int max_connections       # of HTTP/2, to each server
    cdef int n_idle
    cdef unsigned int turn                  # round robin
    cdef uint64_t refusals
    cdef unsigned int start(self) noexcept nogil
    cdef UpstreamRequest take(self, Context ctx, UpstreamUser user, int method, unsigned int attempt, bint fresh)
    cdef void keep(self, UpstreamConnection c) noexcept

cdef void avoid(UpstreamRequest u, uint64_t now) noexcept
