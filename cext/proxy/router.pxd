"""Which route a request takes: by host, path and method, the most specific first.

There may be many: what they consist of is nothing that Python's garbage collector looks through (classes without, and
tuples of such), again and again while they serve and all at once when they are new. None of it refers back, but for what
has hooks.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.stats cimport Counted
from cext.http.message cimport Head
from cext.proxy.early_rules cimport EarlyRules
from cext.proxy.hints cimport EarlyHints
from cext.proxy.pool cimport UpstreamGroup
from cext.proxy.timeouts cimport Timeouts

cdef enum:
    HOST_MAX = 256

cdef class Load:
    """What a route has to do now."""
    cdef readonly uint32_t running          # requests

cdef class Route(Counted):
    """One rule with its upstream and what overrides its listener's timeouts."""
    cdef readonly UpstreamGroup upstream
    cdef readonly tuple hosts, methods
    cdef readonly str path
    cdef bytes pattern
    cdef const uint8_t *pattern_p
    cdef uint32_t pattern_len
    cdef uint32_t method_mask               # bit per Method; 0: any
    cdef tuple other_methods                # those without a Method of their own
    cdef readonly Timeouts timeouts
    cdef readonly uint32_t max_head         # bytes
    cdef readonly uint64_t max_body         # bytes
    cdef readonly uint32_t max_running      # requests at a time; 0: no limit
    cdef readonly Load load                 # goes on when another configuration has the route too
    cdef readonly bint push                 # what responses ask to be preloaded is pushed, where HTTP/2 can
    cdef readonly EarlyHints hints          # None: none are sent but an upstream's
    cdef readonly EarlyRules early          # for requests that arrive in early data; None: they wait
    cdef bint hooked                        # it is a HookedRoute, and has some
    cdef readonly tuple upgrade             # protocols that requests may switch to: bytes in lower case
    cdef bint accepts(self, const uint8_t *path, size_t path_len, int method,
                      const uint8_t *method_name, size_t method_len) noexcept
    cdef bint accepts_method(self, int method, const uint8_t *method_name, size_t method_len) noexcept

cdef class HookedRoute(Route):
    """A route that has hooks of its own. They may refer back: the garbage collector sees to it."""
    cdef object own                         # Hooks, in a worker; None: there are none yet. Python: `hooks`

cdef inline object hooks_of(Route route):
    """Hooks of its own; None: it has none."""
    return (<HookedRoute> route).own if route.hooked else None

cdef int answered_here(Route route, const Head *h) noexcept
"""The status that the edge answers a request by itself with, for which `route` (None: none) was found; 0: forward it.
TRACE gets 405 (RFC 9110 section 9.3.8) unless its route names that method; OPTIONS at its last hop, and OPTIONS *, 204; what has no route otherwise 404."""

cdef class Paths:
    """Routes that differ in path and method: those of a host, most specific first. Of many, those that may fit are looked
    up: by a whole path, by the beginnings of one, and one after the other only where a "*" stands within."""
    cdef tuple routes
    cdef dict exact                         # path -> tuple of (place in `routes`, Route), by place; None: too few routes
    cdef dict prefixes                      # the same by what stands before a final "*"
    cdef list lengths                       # of those, longest first
    cdef list others                        # likewise (place, Route)
    cdef Route first(self, const uint8_t *path, size_t path_len, int method,
                     const uint8_t *method_name, size_t method_len)

cdef class Router:
    cdef dict exact                         # host -> Paths
    cdef dict wildcard                      # parent domain -> Paths
    cdef Paths anywhere
    cdef bint by_host
    cdef readonly bint sees_early           # some route has EarlyRules
    cdef readonly list routes
    cdef readonly dict upstreams            # every UpstreamGroup by its name
    cdef dict bare_routes                   # of what hooks send to an upstream without a route
    cdef Route bare(self, UpstreamGroup group)
    cdef Route find(self, const uint8_t *host, size_t host_len, const uint8_t *path, size_t path_len, int method,
                    const uint8_t *method_name, size_t method_len)
