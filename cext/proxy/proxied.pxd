"""What a proxy in front of us has said of a connection; of connections without it there is no such object."""

from libc.stdint cimport uint8_t

from cext.net.address cimport Peer

cdef class Proxied:
    cdef Peer proxy                 # who connected to us
    cdef Peer local                 # what the client connected to at the proxy; not `known` when it did not say
    cdef readonly bytes raw_tlvs    # as they stood in the header; b"" of version 1

cdef Proxied new_proxied(const Peer *proxy, const Peer *local, const uint8_t *tlvs, size_t n)
