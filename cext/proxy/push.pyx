"""Pushes (see the .pxd)."""

from libc.string cimport memchr, memcmp

from cext.base.buffer cimport bytes_append, bytes_reserve
from cext.http.rules cimport HTTP_TOKEN, http_class, same_name

cdef enum:
    HOST_AFTER_TARGET = 17      # " HTTP/1.1\r\nHost: " stands between them in a serialised head

# Of the request that is answered, what the promised one has too: what it may say about the client, nothing about the
# request itself (its conditions, ranges, priority).
cdef const char **COPIED = [b"accept-encoding", b"accept-language", b"authorization", b"cookie", b"user-agent", NULL]
cdef size_t *COPIED_LENGTHS = [15, 15, 13, 6, 10]


cdef size_t blanks(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    while at < n and (p[at] == c" " or p[at] == c"\t"):
        at += 1
    return at


cdef size_t token_end(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    while at < n and http_class[p[at]] & HTTP_TOKEN:
        at += 1
    return at


cdef size_t quoted_end(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    """Behind the quoted-string that begins at `at`; n when it has no end."""
    at += 1
    while at < n and p[at] != c'"':
        at += 2 if p[at] == c"\\" else 1
    return min(at + 1, n)


cdef bint lists_preload(const uint8_t *p, size_t n) noexcept nogil:
    """Whether one of the relations, which blanks separate, is `preload`."""
    cdef size_t at = 0, end
    while at < n:
        at = blanks(p, n, at)
        end = at
        while end < n and p[end] != c" " and p[end] != c"\t":
            end += 1
        if end - at == 7 and same_name(p + at, <const uint8_t *> b"preload", 7):
            return True
        at = end
    return False


cdef size_t next_preload(const uint8_t *value, size_t n, size_t at, Link *out) noexcept nogil:
    cdef const uint8_t *end
    cdef size_t name, name_len, start, stop
    cdef bint preload, nopush
    out.len = 0
    while True:
        while at < n and (value[at] == c" " or value[at] == c"\t" or value[at] == c","):
            at += 1
        if at == n or value[at] != c"<":
            return n
        end = <const uint8_t *> memchr(value + at, c">", n - at)
        if end == NULL:
            return n
        out.target = value + at + 1
        stop = end - out.target
        preload = nopush = False
        at = blanks(value, n, end - value + 1)
        out.len = 0
        while at < n and value[at] == c";":
            name = blanks(value, n, at + 1)
            at = token_end(value, n, name)
            name_len = at - name
            start = at = blanks(value, n, at)
            if at < n and value[at] == c"=":
                start = at = blanks(value, n, at + 1)
                if at < n and value[at] == c'"':
                    start += 1
                    at = quoted_end(value, n, at)
                    if name_len == 3 and same_name(value + name, <const uint8_t *> b"rel", 3):
                        preload |= lists_preload(value + start, at - start - 1 if at > start else 0)
                else:
                    at = token_end(value, n, at)
                    if name_len == 3 and same_name(value + name, <const uint8_t *> b"rel", 3):
                        preload |= lists_preload(value + start, at - start)
            elif name_len == 6 and same_name(value + name, <const uint8_t *> b"nopush", 6):
                nopush = True
            at = blanks(value, n, at)
        if at < n and value[at] != c",":
            return n
        if preload and not nopush and stop:
            out.len = stop
            return at


cdef int promised_request(Exchange x, const Link *link, Bytes *out) noexcept:
    cdef const uint8_t *head = x.head.data
    cdef const uint8_t *host = head + x.method_len + 1 + x.target_len + HOST_AFTER_TARGET
    cdef const uint8_t *stop = head + x.head.len
    cdef const uint8_t *p = link.target
    cdef const uint8_t *fragment = <const uint8_t *> memchr(p, c"#", link.len)
    cdef const uint8_t *colon
    cdef const uint8_t *end
    cdef size_t n = fragment - p if fragment != NULL else link.len
    cdef int r
    if n > 8 + x.host_len and memcmp(p, b"https://", 8) == 0 and same_name(p + 8, host, x.host_len):
        p += 8 + x.host_len
        n -= 8 + x.host_len
    elif n > 1 and p[1] == c"/":
        return -1
    if n == 0 or p[0] != c"/":
        return -1
    if bytes_reserve(out, n + x.head.len + 32) < 0:
        return -1
    r = bytes_append(out, b"GET ", 4)
    r |= bytes_append(out, p, n)
    r |= bytes_append(out, b" HTTP/1.1\r\nHost: ", HOST_AFTER_TARGET)
    r |= bytes_append(out, host, x.host_len + 2)
    p = host + x.host_len + 2
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
