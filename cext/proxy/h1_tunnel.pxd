"""A client's connection of HTTP/1.1 after a 101: bytes of another protocol, for a Tunnel."""

from libc.stdint cimport uint64_t

from cext.proxy.downstream cimport Downstream, Session
from cext.proxy.tunnel cimport Tunnel

cdef class H1Tunnel(Session):
    cdef Downstream client              # None once the connection is closed
    cdef Tunnel tunnel                  # None once it is over
    cdef uint64_t wire_in, wire_out     # heads included
    cdef void end_input(self) noexcept

cdef H1Tunnel open_tunnel(Downstream client, Tunnel tunnel, uint64_t wire_in, uint64_t wire_out)
# The session that takes the place of the one that read the request; the 101 stands in the connection's output.
