"""Upstreams: a group of servers, and per server its idle connections, the last used first."""

from libc.stdint cimport uint64_t

from cext.net.address cimport Address
from cext.proxy.context cimport Context
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

cdef class UpstreamGroup:
    cdef readonly str name
    cdef readonly list servers
    cdef readonly int max_idle
    cdef readonly int idle_ms
    cdef int n_idle
    cdef unsigned int turn                  # round robin
    cdef uint64_t refusals
    cdef unsigned int start(self) noexcept nogil
    cdef UpstreamRequest take(self, Context ctx, UpstreamUser user, int method, unsigned int attempt, bint fresh)
    cdef void keep(self, UpstreamConnection c) noexcept

cdef void avoid(UpstreamRequest u, uint64_t now) noexcept
