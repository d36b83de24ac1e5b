"""Pushes (see the .pxd)."""

from libc.stdint cimport uint8_t
from libc.string cimport memchr

from cext.base.buffer cimport bytes_append, bytes_reserve
from cext.http.h1_writer cimport RequestText, request_text
from cext.http.links cimport LINK_PRELOAD, resolve_path
from cext.http.rules cimport same_name

# Of the request that is answered, what the promised one has too: what it may say about the client, nothing about the
# request itself (its conditions, ranges, priority).
cdef const char **COPIED = [b"accept-encoding", b"accept-language", b"authorization", b"cookie", b"user-agent", NULL]
cdef size_t *COPIED_LENGTHS = [15, 15, 13, 6, 10]


cdef int promised_request(Exchange x, const Link *link, Bytes *out) noexcept:
    cdef Exchange first = x if x.overseer is None or x.overseer.before is None else x.overseer.before
    cdef RequestText asked = request_text(first.head.data, first.head.len, first.method_len, first.target_len, first.host_len)
    cdef const uint8_t *p = asked.lines
    cdef const uint8_t *stop = p + asked.lines_len
    cdef const uint8_t *colon
    cdef const uint8_t *end
    cdef int r
    if not link.relations & LINK_PRELOAD or link.nopush or link.anchored:
        return -1
    if bytes_reserve(out, link.target_len + asked.target_len + x.head.len + 32) < 0:
        return -1
    r = bytes_append(out, b"GET ", 4)
    if resolve_path(asked.host, asked.host_len, asked.target, asked.target_len, link.target, link.target_len, out) < 0:
        return -1
    r |= bytes_append(out, b" HTTP/1.1\r\nHost: ", 17)
    r |= bytes_append(out, asked.host, asked.host_len)
    r |= bytes_append(out, b"\r\n", 2)
    while p < stop and p[0] != c"\r":
        end = <const uint8_t *> memchr(p, c"\n", stop - p) + 1
        colon = <const uint8_t *> memchr(p, c":", end - p)
        if is_copied(p, colon - p):
            r |= bytes_append(out, p, end - p)
        p = end
    r |= bytes_append(out, b"\r\n", 2)
    return 0 if r == 0 else -1


cdef bint is_copied(const uint8_t *name, size_t n) noexcept nogil:
    cdef int i = 0
    while COPIED[i] != NULL:
        if n == COPIED_LENGTHS[i] and same_name(name, <const uint8_t *> COPIED[i], n):
            return True
        i += 1
    return False
