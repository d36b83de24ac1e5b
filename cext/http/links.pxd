"""What `Link` fields say (RFC 8288), and the request that follows from a link's target (RFC 3986, section 5.2)."""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Bytes

cdef enum LinkRelation:                 # those that a client acts on before it has the page
    LINK_PRELOAD = 1
    LINK_MODULEPRELOAD = 2
    LINK_PRECONNECT = 4

cdef struct Link:
    const uint8_t *text                 # the whole link-value, inside the field's
    size_t len
    const uint8_t *target               # the URI-Reference
    size_t target_len
    uint8_t relations                   # LinkRelation, or-ed
    bint nopush
    bint anchored                       # it speaks of another page than the one it came with

cdef size_t next_link(const uint8_t *value, size_t n, size_t at, Link *out) noexcept nogil
# The next link-value from `at` on -> where to go on; `out.len` is 0 when there is none. A value that is no list of links
# ends the search.

cdef int resolve_path(const uint8_t *host, size_t host_len, const uint8_t *base, size_t base_len,
                      const uint8_t *ref, size_t n, Bytes *out) noexcept nogil
# Appends path and query of a reference that stands in a page of https://host and `base` (path and query). 0; -1 for one of
# another origin, for the page itself, or without memory.
