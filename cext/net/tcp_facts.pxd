"""What the kernel knows of a TCP connection, for who looks on."""

from libc.stdint cimport uint32_t, uint64_t

cdef struct TcpFacts:
    uint64_t received           # bytes that came,
    uint64_t acknowledged       # and bytes that the peer has taken
    uint32_t rtt_us
    uint32_t quiet_ms           # since data came or went

cdef bint tcp_facts_of(int fd, TcpFacts *facts) noexcept nogil
# False: the kernel does not say.
