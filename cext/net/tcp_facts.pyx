"""TCP_INFO (see the .pxd)."""

from cext.lib.linux cimport IPPROTO_TCP, TCP_INFO, getsockopt, socklen_t, tcp_facts


cdef bint tcp_facts_of(int fd, TcpFacts *facts) noexcept nogil:
    cdef tcp_facts told
    cdef socklen_t n = sizeof(told)
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &told, &n) < 0 or n < sizeof(told):
        return False
    facts.received = told.tcpi_bytes_received
    facts.acknowledged = told.tcpi_bytes_acked
    facts.rtt_us = told.tcpi_rtt
    facts.quiet_ms = min(told.tcpi_last_data_sent, told.tcpi_last_data_recv)
    return True
