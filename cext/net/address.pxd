"""Socket addresses: where to connect to, and who has connected."""

from libc.stdint cimport uint8_t, uint16_t

from cext.lib.linux cimport sockaddr_storage, socklen_t

cdef enum:
    LOCAL_TEXT = 56                 # and for one with brackets and port
    ADDRESS_TEXT = 46               # room for any IP address as text, with its NUL

cdef struct Address:
    sockaddr_storage storage
    socklen_t length

cdef struct Peer:                   # a client, in 20 bytes
    uint8_t ip[16]
    uint16_t port
    uint8_t v6
    uint8_t known                   # False for a Unix socket's

cdef int address_set(Address *a, str kind, str name, int port) except -1
cdef void peer_set(Peer *p, const sockaddr_storage *from_kernel) noexcept nogil
cdef bint peer_parse(Peer *p, const char *ip, uint16_t port) noexcept nogil
"""From an IP address as text; False when it is none."""
cdef void peer_unmap(Peer *p) noexcept nogil
"""An IPv4 client of a socket that listens for both families (::ffff:192.0.2.1) becomes one of IPv4."""
cdef size_t peer_text(const Peer *p, char *out) noexcept nogil
"""The IP address without brackets or port; out has ADDRESS_TEXT bytes -> length (0: unknown)."""
cdef bint local_peer(int fd, Peer *p) noexcept nogil
"""What a socket is addressed by at our end; False: it is not an IP socket."""
cdef size_t local_text(int fd, char *out) noexcept nogil
"""What a socket is addressed by at our end, as an authority ("127.0.0.1:443", "[::1]:443"); out has LOCAL_TEXT bytes
-> length (0: not an IP socket)."""
cdef size_t authority_text(const Peer *p, char *out) noexcept nogil
"""An address as such an authority; likewise."""
