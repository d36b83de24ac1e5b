"""Frames of HTTP/2, as far as a client of one stream looks at them (RFC 9113, section 4.1)."""

from libc.stddef cimport size_t

from cext.base.buffer cimport Bytes, bytes_consume

cdef enum:
    FRAME_HEADER = 9
    FRAME_HEADERS = 1                   # FRAME_DATA is 0
    FRAME_RST_STREAM = 3
    FRAME_GOAWAY = 7
    FLAG_END_STREAM = 1

cdef inline int stream_ends(Bytes *received) noexcept:
    """Takes all whole frames: 1 when one of them ends a stream with its content, -1 when the server gives up, else 0."""
    cdef size_t length
    cdef int kind
    while received.len >= FRAME_HEADER:
        length = (received.data[0] << 16 | received.data[1] << 8 | received.data[2]) + FRAME_HEADER
        if received.len < length:
            return 0
        kind = received.data[3]
        if kind == FRAME_GOAWAY or kind == FRAME_RST_STREAM:
            return -1
        if kind <= FRAME_HEADERS and received.data[4] & FLAG_END_STREAM:
            return 1
        bytes_consume(received, length)
    return 0
