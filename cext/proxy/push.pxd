"""What a response asks to be pushed: `Link: <...>; rel=preload` (RFC 8288), and the requests that follow from it."""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Bytes
from cext.proxy.exchange cimport Exchange

cdef struct Link:
    const uint8_t *target               # inside the field's value
    size_t len

cdef size_t next_preload(const uint8_t *value, size_t n, size_t at, Link *out) noexcept nogil
# The next link from `at` on that is to be preloaded and is not marked `nopush` -> where to go on; `out.len` is 0 when
# there is none. A value that is no list of links ends the search.

cdef int promised_request(Exchange x, const Link *link, Bytes *out) noexcept
# The text of a GET of the link's target, as x's client would ask for it: its origin, and of its fields those on the list
# in push.pyx. 0; -1 for a target that is not of the same origin and given by its whole path, or without memory.
