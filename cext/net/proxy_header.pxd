"""The PROXY protocol, versions 1 and 2: what a proxy in front of us says of the client, before the client's bytes.

(HAProxy's proxy-protocol.txt.) Sans-I/O: a function of bytes that have come.
"""

from libc.stdint cimport uint8_t

from cext.net.address cimport Peer

cdef enum:
    PROXY_V1_MAX = 107                  # with its CRLF
    PROXY_V2_HEADER = 16
    PROXY_V2_BODY_MAX = 4096            # addresses and TLVs; the format could have 65535
    PROXY_HEADER_MAX = PROXY_V2_HEADER + PROXY_V2_BODY_MAX

cdef struct ProxyHeader:
    uint8_t version
    uint8_t known               # client and local are set; else (LOCAL, UNKNOWN, Unix sockets) those of the connection hold
    Peer client
    Peer local                  # what the client connected to
    const uint8_t *tlvs         # of version 2, checked: type, 16 bits of length, value
    size_t tlvs_len

cdef ssize_t proxy_parse(const uint8_t *p, size_t n, ProxyHeader *h, const char **fault) noexcept nogil
"""-> length of the header at p[:n], into which h points; 0 while more must come; -1: `fault` tells what is wrong."""
