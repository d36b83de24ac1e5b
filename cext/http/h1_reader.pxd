"""HTTP/1.1 heads and bodies, read from memory (RFC 9112). Every function is a pure step: nothing is kept but the
small structs the caller owns, so a peer may send its bytes in any pieces."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cext.http.message cimport Head, Limits

cdef int find_head_end(const uint8_t *p, size_t n, uint32_t *scanned, const Limits *limits, bint request) noexcept nogil
"""Length of the head at p (through its empty line), 0 when it is not whole yet, or -status. `scanned` (0 at
first) remembers how far it looked, so bytes that trickle in cost linear time; its content is opaque. -400 as soon
as a bare CR, bare LF or NUL shows; -414 (request line), -431 over a limit; with request 0, -502 for all of them.
Empty lines before a request line are the caller's, as long as scanned is 0: see skip_empty_lines."""

cdef size_t skip_empty_lines(const uint8_t *p, size_t n) noexcept nogil
"""How many bytes of whole CRLFs stand at p (a server ignores at least one, RFC 9112 section 2.2)."""

cdef int parse_request(const uint8_t *p, size_t n, const Limits *limits, Head *out) noexcept nogil
"""Parses a whole head of n bytes and settles its framing (http/rules). 0, or -status: 400, 414, 417, 431, 501, 505.
After a failure nothing in `out` may be used."""

cdef int parse_response(const uint8_t *p, size_t n, const Limits *limits, int request_method, Head *out) noexcept nogil
"""Likewise for a response to request_method; 0, or -502. 1xx heads come through here too (FRAMING_NONE)."""

cdef enum BodyStep:
    BODY_MORE = 0                       # all input taken, body not at its end
    BODY_DATA = 1                       # data[:len] is content, inside the input
    BODY_END = 2                        # the message is complete (consumed says up to where)
    BODY_ERROR = -1                     # bad chunk framing: 400 from a client, 502 from an upstream

cdef struct BodyReader:
    uint8_t framing
    uint8_t state
    uint64_t remaining                  # of the length or of the current chunk
    uint32_t line                       # bytes of the chunk-size line or trailer section so far
    uint8_t *trailers                   # validated trailer field lines ("Name: value\r\n" ...), malloc'ed
    uint32_t trailers_len
    uint32_t trailers_cap
    uint32_t trailers_open              # bytes of an unfinished line behind trailers_len

cdef void body_begin(BodyReader *b, int framing, int64_t content_length) noexcept nogil
"""Sets all of b, without looking at it: body_free comes first when it was in use."""
cdef int body_next(BodyReader *b, const uint8_t *p, size_t n, size_t *consumed,
                   const uint8_t **data, size_t *data_len) noexcept nogil
"""One step -> BodyStep; call again with what was not consumed until BODY_MORE, BODY_END or BODY_ERROR, with n = 0 too:
a body of no (more) bytes ends without input. Trailer fields: forbidden ones (framing, routing,
Host, auth: RFC 9110 section 6.5.1) are dropped, malformed ones are BODY_ERROR. With FRAMING_CLOSE only the caller
knows the end: body_eof."""
cdef int body_eof(BodyReader *b) noexcept nogil
"""The connection ended: BODY_END for FRAMING_CLOSE or a message that was complete, else BODY_ERROR (incomplete)."""
cdef void body_free(BodyReader *b) noexcept nogil
