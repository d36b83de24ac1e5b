"""The HTTP codec's functions called in a loop of C, so that a nanosecond of theirs is not lost in Python's calls."""

from libc.stdint cimport uint8_t, uint32_t

from cext.http.h1_reader cimport (
    BODY_DATA, BODY_END, BodyReader, body_begin, body_free, body_next, find_head_end, parse_request, parse_response)
from cext.http.h1_writer cimport Forwarding, write_request, write_response
from cext.http.message cimport FRAMING_CHUNKED, METHOD_GET, Head, Limits

cdef Limits LIMITS
LIMITS.line, LIMITS.head, LIMITS.fields = 8192, 32768, 100


def read_requests(bytes data not None, int times):
    """find_head_end and parse_request; the sum of what they return (so nothing is optimised away)."""
    cdef const uint8_t *p = data
    cdef size_t n = len(data)
    cdef long total = 0
    cdef uint32_t scanned
    cdef Head head
    cdef int i
    with nogil:
        for i in range(times):
            scanned = 0
            total += find_head_end(p, n, &scanned, &LIMITS, 1)
            total += parse_request(p, n, &LIMITS, &head)
    return total


def read_responses(bytes data not None, int times):
    cdef const uint8_t *p = data
    cdef size_t n = len(data)
    cdef long total = 0
    cdef uint32_t scanned
    cdef Head head
    cdef int i
    with nogil:
        for i in range(times):
            scanned = 0
            total += find_head_end(p, n, &scanned, &LIMITS, 0)
            total += parse_response(p, n, &LIMITS, METHOD_GET, &head)
    return total


def write_requests(bytes data not None, int times):
    cdef Head head
    cdef Forwarding f
    cdef uint8_t out[65536]
    cdef long total = 0
    cdef int i
    if parse_request(data, len(data), &LIMITS, &head) < 0:
        raise ValueError("not a request head")
    f.client, f.client_len, f.client_is_v6, f.proto = b"192.0.2.17", 10, 0, b"https"
    f.x_forwarded, f.forwarded, f.default_host, f.default_host_len = 1, 0, NULL, 0
    f.asked_host, f.asked_host_len = NULL, 0
    f.upgrade, f.upgrade_len, f.websocket_key, f.dropped_len = NULL, 0, NULL, 0
    with nogil:
        for i in range(times):
            total += write_request(&head, &f, head.framing, out, sizeof(out))
    return total


def write_responses(bytes data not None, int times):
    cdef Head head
    cdef uint8_t out[65536]
    cdef long total = 0
    cdef int i
    if parse_response(data, len(data), &LIMITS, METHOD_GET, &head) < 0:
        raise ValueError("not a response head")
    with nogil:
        for i in range(times):
            total += write_response(&head, head.framing, 1, 1, b"Sat, 21 Nov 2026 19:00:00 GMT", out, sizeof(out))
    return total


def read_chunked(bytes data not None, int times):
    """Reads a whole chunked body; the content's bytes in all."""
    cdef BodyReader reader
    cdef const uint8_t *content
    cdef size_t at, consumed, n
    cdef size_t total = 0
    cdef int i, step
    for i in range(times):
        body_begin(&reader, FRAMING_CHUNKED, 0)
        at = 0
        step = BODY_DATA
        while step == BODY_DATA:
            step = body_next(&reader, <const uint8_t *> <const char *> data + at, len(data) - at, &consumed,
                             &content, &n)
            at += consumed
            total += n
        body_free(&reader)
        if step != BODY_END:
            raise ValueError("not a chunked body")
    return total
