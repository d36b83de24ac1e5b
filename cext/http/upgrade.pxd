"""Switching protocols by Upgrade (RFC 9110 section 7.8): what a head asks for and what a 101 grants; and what WebSockets
add, that no cache or confused server takes part in one unknowingly (RFC 6455 sections 1.3 and 4)."""

from libc.stdint cimport uint8_t

from cext.http.message cimport Field, Head, Span

cdef enum:
    WEBSOCKET_KEY = 24                  # characters of Sec-WebSocket-Key: 16 bytes in base64
    WEBSOCKET_NONCE = 16
    WEBSOCKET_ACCEPT = 28               # of Sec-WebSocket-Accept: a SHA-1 in base64
    WEBSOCKET_CHALLENGE = 60            # what that is the hash of

cdef const char *WEBSOCKET_KEY_FIELD
cdef const char *WEBSOCKET_ACCEPT_FIELD

cdef bint is_named(const Head *h, const Field *f, const char *name) noexcept nogil

cdef bint single_field(const Head *h, const char *name, Span *value) noexcept nogil
"""The value of the one end-to-end field of that name; 0 when there is none, or more than one."""

cdef bint websocket_key(const Head *h, Span *key) noexcept nogil
"""A request's Sec-WebSocket-Key; 0 unless there is one, of the right form (RFC 6455 section 4.2.1)."""

cdef void websocket_challenge(const uint8_t *key, uint8_t *out) noexcept nogil
"""The WEBSOCKET_CHALLENGE bytes whose SHA-1 a server that has understood `key` answers with (section 4.2.2)."""

cdef bint grants(const Head *h, const uint8_t *protocol, size_t n) noexcept nogil
"""Whether a 101 switches to `protocol` and nothing else."""

cdef bint accepts_websocket(const Head *h, const uint8_t *accept) noexcept nogil
"""Whether a 101 has the Sec-WebSocket-Accept that is expected (section 4.1)."""

cdef void base64(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
"""Writes the (n + 2) // 3 * 4 characters of p[:n], padding among them."""
