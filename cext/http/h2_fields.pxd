"""Fields of HTTP/2 for nghttp2, which copies them, the names in lower case."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.http.h1_writer cimport DECIMAL_MAX, write_decimal
from cext.http.message cimport FIELD_CONTENT_LENGTH, FIELD_HOST, Field, Head, Span
from cext.lib.nghttp2 cimport NGHTTP2_NV_FLAG_NONE, nghttp2_nv


cdef inline void set_field(nghttp2_nv *nv, const uint8_t *name, size_t n, const uint8_t *value,
                           size_t m) noexcept nogil:
    nv.name = <uint8_t *> name
    nv.namelen = n
    nv.value = <uint8_t *> value
    nv.valuelen = m
    nv.flags = NGHTTP2_NV_FLAG_NONE


cdef inline void set_span(nghttp2_nv *nv, const uint8_t *name, size_t n, const Head *h, const Span *s) noexcept nogil:
    set_field(nv, name, n, h.base + s.off, s.len)


cdef inline void set_status(nghttp2_nv *nv, uint8_t *digits, int status) noexcept nogil:
    digits[0] = c"0" + <uint8_t> (status // 100)
    digits[1] = c"0" + <uint8_t> (status // 10 % 10)
    digits[2] = c"0" + <uint8_t> (status % 10)
    set_field(nv, b":status", 7, digits, 3)


cdef inline void set_length(nghttp2_nv *nv, uint8_t *digits, uint64_t v) noexcept nogil:
    """content-length; `digits`: DECIMAL_MAX bytes that stay as long as nv."""
    cdef size_t n = write_decimal(digits + DECIMAL_MAX, v)
    set_field(nv, b"content-length", 14, digits + DECIMAL_MAX - n, n)


cdef inline size_t set_response(nghttp2_nv *nv, uint8_t *status, const Head *h) noexcept nogil:
    """:status, and the fields of a response's head that go on; how many."""
    cdef const Field *f
    cdef size_t n = 1
    cdef uint32_t i
    set_status(&nv[0], status, h.status)
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not f.hop_by_hop and f.id != FIELD_CONTENT_LENGTH:
            set_field(&nv[n], h.base + f.name.off, f.name.len, h.base + f.value.off, f.value.len)
            n += 1
    return n


cdef inline size_t set_request(nghttp2_nv *nv, const Head *h, const char *scheme, size_t scheme_len) noexcept nogil:
    """The pseudo-header fields of a request (RFC 9113, section 8.3.1), and the fields of its head that go on; how many.
    Room: MAX_FIELDS + 4."""
    cdef const Field *f
    cdef size_t n = 4
    cdef uint32_t i
    set_span(&nv[0], b":method", 7, h, &h.method_name)
    set_field(&nv[1], b":scheme", 7, <const uint8_t *> scheme, scheme_len)
    set_span(&nv[2], b":authority", 10, h, &h.host)
    set_span(&nv[3], b":path", 5, h, &h.path)
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not f.hop_by_hop and f.id != FIELD_HOST:
            set_span(&nv[n], h.base + f.name.off, f.name.len, h, &f.value)
            n += 1
    return n


cdef inline size_t set_trailers(nghttp2_nv *nv, const Bytes *lines, size_t most) noexcept nogil:
    """Fields of "Name: value\\r\\n" lines, which are well-formed; how many."""
    cdef uint8_t *p = lines.data
    cdef uint8_t *stop = p + lines.len
    cdef uint8_t *colon
    cdef uint8_t *end
    cdef size_t n = 0
    while p < stop and n < most:
        colon = p
        while colon[0] != c":":
            colon += 1
        end = colon
        while end[0] != c"\r":
            end += 1
        set_field(&nv[n], p, colon - p, colon + 2, max(end - colon, 2) - 2)
        n += 1
        p = end + 2
    return n
