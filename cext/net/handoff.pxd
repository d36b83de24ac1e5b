"""The message with which a connection is handed over (docs/handoff.md has it byte by byte).

A header of 52 bytes, fields of type and length behind it, then what has been read from the client. Integers are big-endian.
"""

from libc.stdint cimport uint8_t

from cext.net.address cimport Peer

cdef enum:
    HANDOFF_HEADER = 52                 # without fields
    HANDOFF_HEADER_MAX = 8192           # with them
    HANDOFF_DATA_MAX = 96 * 1024
    HANDOFF_MAX = HANDOFF_HEADER_MAX + HANDOFF_DATA_MAX
    HANDOFF_NAME_MAX = 64
    HANDOFF_PROXIED = 0x01              # flag: the addresses are not the descriptor's own, but a PROXY header's

cdef struct Handoff:
    uint8_t flags
    Peer client
    Peer local                          # the address that the client connected to
    const uint8_t *name                 # of the rule, as the sender calls it; name_len 0: none
    size_t name_len
    const uint8_t *tlvs                 # of the PROXY header, as they stood in it
    size_t tlvs_len
    const uint8_t *data
    size_t data_len

cdef size_t handoff_header(const Handoff *h, uint8_t *out) noexcept nogil
"""Writes all but the data, HANDOFF_HEADER_MAX bytes at most -> length; 0 when it is too much for a message."""

cdef const char *handoff_parse(const uint8_t *p, size_t n, Handoff *h) noexcept nogil
"""A whole message; h points into it -> NULL, or what is wrong."""

cdef const char *handoff_check(int fd, const Handoff *h, Peer *peer) noexcept nogil
"""Whether the descriptor is a TCP connection, and that of the message's client -> NULL, or what is wrong.
`peer`: who is at its other end; a proxy, if there is one."""
