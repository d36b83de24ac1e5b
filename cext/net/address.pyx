"""Socket addresses (see the .pxd)."""

from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from cext.lib.linux cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    getsockname,
    htons,
    inet_ntop,
    inet_pton,
    ntohs,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_un,
)


cdef int address_set(Address *a, str kind, str name, int port) except -1:
    """From ("tcp", literal IP, port) or ("unix", path, 0); ValueError on anything else."""
    cdef sockaddr_in *v4 = <sockaddr_in *> &a.storage
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *> &a.storage
    cdef sockaddr_un *un = <sockaddr_un *> &a.storage
    cdef bytes text = name.encode()
    memset(a, 0, sizeof(Address))
    if kind == "unix":
        if <size_t> len(text) >= sizeof(un.sun_path):
            raise ValueError(f"{name!r}: a Unix socket's path has at most {sizeof(un.sun_path) - 1} bytes")
        un.sun_family = AF_UNIX
        memcpy(un.sun_path, <const char *> text, len(text))
        a.length = sizeof(sockaddr_un)
        return 0
    if kind != "tcp":
        raise ValueError(f"{kind!r}: must be 'tcp' or 'unix'")
    if not 0 < port < 65536:
        raise ValueError(f"port {port}: not in 1 to 65535")
    if inet_pton(AF_INET, text, &v4.sin_addr) == 1:
        v4.sin_family = AF_INET
        v4.sin_port = htons(port)
        a.length = sizeof(sockaddr_in)
    elif inet_pton(AF_INET6, text, &v6.sin6_addr) == 1:
        v6.sin6_family = AF_INET6
        v6.sin6_port = htons(port)
        a.length = sizeof(sockaddr_in6)
    else:
        raise ValueError(f"{name!r}: not a literal IP address")
    return 0


cdef void peer_set(Peer *p, const sockaddr_storage *from_kernel) noexcept nogil:
    memset(p, 0, sizeof(Peer))
    if from_kernel.ss_family == AF_INET:
        memcpy(p.ip, &(<sockaddr_in *> from_kernel).sin_addr, 4)
        p.port = ntohs((<sockaddr_in *> from_kernel).sin_port)
        p.known = True
    elif from_kernel.ss_family == AF_INET6:
        memcpy(p.ip, &(<sockaddr_in6 *> from_kernel).sin6_addr, 16)
        p.port = ntohs((<sockaddr_in6 *> from_kernel).sin6_port)
        p.v6 = True
        p.known = True


cdef bint peer_parse(Peer *p, const char *ip, uint16_t port) noexcept nogil:
    memset(p, 0, sizeof(Peer))
    if inet_pton(AF_INET, ip, p.ip) != 1:
        if inet_pton(AF_INET6, ip, p.ip) != 1:
            return False
        p.v6 = True
    p.port = port
    p.known = True
    return True


cdef void peer_unmap(Peer *p) noexcept nogil:
    cdef int i
    if not p.v6 or p.ip[10] != 0xFF or p.ip[11] != 0xFF:
        return
    for i in range(10):
        if p.ip[i]:
            return
    memcpy(p.ip, &p.ip[12], 4)
    memset(&p.ip[4], 0, 12)
    p.v6 = False


cdef size_t peer_text(const Peer *p, char *out) noexcept nogil:
    cdef size_t n = 0
    cdef int i
    cdef uint8_t b
    out[0] = 0
    if not p.known:
        return 0
    if p.v6:
        if inet_ntop(AF_INET6, p.ip, out, ADDRESS_TEXT) == NULL:
            return 0
        while out[n]:
            n += 1
        return n
    for i in range(4):              # on every request's way: twice as fast as inet_ntop
        b = p.ip[i]
        if b >= 100:
            out[n] = <char> (c'0' + b // 100)
            n += 1
        if b >= 10:
            out[n] = <char> (c'0' + b // 10 % 10)
            n += 1
        out[n] = <char> (c'0' + b % 10)
        out[n + 1] = c'.'
        n += 2
    out[n - 1] = 0
    return n - 1


cdef bint local_peer(int fd, Peer *p) noexcept nogil:
    cdef Address a
    a.length = sizeof(a.storage)
    if getsockname(fd, <sockaddr *> &a.storage, &a.length) < 0:
        p.known = False
        return False
    peer_set(p, &a.storage)
    return p.known


cdef size_t local_text(int fd, char *out) noexcept nogil:
    cdef Peer us
    return authority_text(&us, out) if local_peer(fd, &us) else 0


cdef size_t authority_text(const Peer *p, char *out) noexcept nogil:
    cdef char ip[ADDRESS_TEXT]
    if peer_text(p, ip) == 0:
        return 0
    return snprintf(out, LOCAL_TEXT, "[%s]:%u" if p.v6 else "%s:%u", ip, <unsigned int> p.port)
