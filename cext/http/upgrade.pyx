"""Upgrade and what WebSockets add to it (see the .pxd).

A proxy that switches to relaying bytes stops looking at them. So it must be sure that both ends have switched: a backend
that answers anything but the very 101 that was asked for is still reading HTTP, and what a client sent next would be
requests that nobody has looked at.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen

from cext.http.message cimport Field, Head, Span
from cext.http.rules cimport same_name

cdef const char *WEBSOCKET_KEY_FIELD = b"sec-websocket-key"
cdef const char *WEBSOCKET_ACCEPT_FIELD = b"sec-websocket-accept"

cdef const char *WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"      # RFC 6455, section 1.3
cdef const char *ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef bint is_named(const Head *h, const Field *f, const char *name) noexcept nogil:
    return f.name.len == strlen(name) and same_name(h.base + f.name.off, <const uint8_t *> name, f.name.len)


cdef bint single_field(const Head *h, const char *name, Span *value) noexcept nogil:
    cdef uint32_t i
    cdef bint found = 0
    for i in range(h.n_fields):
        if not is_named(h, &h.fields[i], name):
            continue
        if found or h.fields[i].hop_by_hop:
            return 0
        found = 1
        value[0] = h.fields[i].value
    return found


cdef bint websocket_key(const Head *h, Span *key) noexcept nogil:
    cdef const uint8_t *p
    cdef int i
    if not single_field(h, WEBSOCKET_KEY_FIELD, key) or key.len != WEBSOCKET_KEY:
        return 0
    p = h.base + key.off
    for i in range(WEBSOCKET_KEY - 2):
        if not (c"A" <= p[i] <= c"Z" or c"a" <= p[i] <= c"z" or c"0" <= p[i] <= c"9" or p[i] == c"+" or p[i] == c"/"):
            return 0
    return p[WEBSOCKET_KEY - 2] == c"=" and p[WEBSOCKET_KEY - 1] == c"="


cdef void websocket_challenge(const uint8_t *key, uint8_t *out) noexcept nogil:
    memcpy(out, key, WEBSOCKET_KEY)
    memcpy(out + WEBSOCKET_KEY, WEBSOCKET_GUID, WEBSOCKET_CHALLENGE - WEBSOCKET_KEY)


cdef bint grants(const Head *h, const uint8_t *protocol, size_t n) noexcept nogil:
    return h.upgrade.len == n and same_name(h.base + h.upgrade.off, protocol, n)


cdef bint accepts_websocket(const Head *h, const uint8_t *accept) noexcept nogil:
    cdef Span value
    return (single_field(h, WEBSOCKET_ACCEPT_FIELD, &value) and value.len == WEBSOCKET_ACCEPT
            and memcmp(h.base + value.off, accept, WEBSOCKET_ACCEPT) == 0)


cdef void base64(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef uint32_t bits
    while n:
        bits = <uint32_t> p[0] << 16
        if n > 1:
            bits |= <uint32_t> p[1] << 8
        if n > 2:
            bits |= p[2]
        out[0] = ALPHABET[bits >> 18]
        out[1] = ALPHABET[bits >> 12 & 63]
        out[2] = ALPHABET[bits >> 6 & 63] if n > 1 else c"="
        out[3] = ALPHABET[bits & 63] if n > 2 else c"="
        if n < 3:
            return
        p += 3
        n -= 3
        out += 4


# -- the same for Python: tests

def base64_text(bytes data not None):
    cdef uint8_t out[256]
    if len(data) > 180:
        raise ValueError("too long")
    base64(data, len(data), out)
    return out[:(len(data) + 2) // 3 * 4]
