"""The router and the pool called in a loop of C, so that a nanosecond of theirs is not lost in Python's calls."""

from libc.stdint cimport uint8_t

from cext.http.message cimport METHOD_GET
from cext.proxy.context cimport Context
from cext.proxy.h1_upstream cimport H1Request
from cext.proxy.pool cimport UpstreamGroup
from cext.proxy.router cimport Route, Router
from cext.proxy.upstream cimport UpstreamUser


def find_routes(Router router not None, bytes host not None, bytes path not None, int times):
    """Router.find for a GET -> the route found last."""
    cdef const uint8_t *h = host
    cdef const uint8_t *p = path
    cdef size_t host_len = len(host)
    cdef size_t path_len = len(path)
    cdef Route route = None
    cdef int i
    for i in range(times):
        route = router.find(h, host_len, p, path_len, METHOD_GET, b"GET", 3)
    return route


cdef class Pooled:
    """A group's connections, without a loop that runs."""

    cdef Context ctx
    cdef UpstreamGroup group
    cdef UpstreamUser user

    def __init__(self, loop, UpstreamGroup group):
        self.ctx = Context(loop, None, print)
        self.group = group
        self.user = UpstreamUser()

    def cycle(self, int connections, int times):
        """`connections` taken, then all released, `times` times -> how many are idle in the end."""
        cdef list taken = []
        cdef H1Request u
        cdef int i
        for i in range(times):
            while len(taken) < connections:
                taken.append(self.group.take(self.ctx, self.user, METHOD_GET, self.group.start(), False))
            while taken:
                u = <H1Request> taken.pop()
                if u.closed:
                    raise OSError(u.error, "connect")
                u.user = None
                self.group.keep(u.connection)
        return self.group.idle_connections()

    def close(self):
        self.group.close_idle()
