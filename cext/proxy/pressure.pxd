"""What gives way when descriptors or memory run short."""

from libc.stdint cimport uint64_t

from cext.proxy.context cimport Context, Relief
from cext.proxy.listener_settings cimport ListenerSettings

cdef class Pressure(Relief):
    cdef Context ctx
    cdef uint64_t memory_limit
    cdef uint64_t[2] spell_until        # of descriptors, of memory: by the loop's clock
    cdef uint64_t listeners_until, upstreams_until  # loop ms: a look just before found nothing idle of these
    cdef object statm                   # a descriptor of /proc/self/statm, or None
    cdef void tell(self, int what, str message) noexcept
    cdef int evict_clients(self, ListenerSettings only, int most) noexcept
    cdef int evict_upstreams(self, int most) noexcept
