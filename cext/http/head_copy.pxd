"""A head with memory of its own: it outlives the bytes that it was read from, and its fields can be changed.

Whoever changes it has looked at what is written with the rules of cext.http.rules, as the reader of a head does; that it
is then serialised from its parts, as every head is, keeps the rest as it was.
"""

from libc.stdint cimport uint8_t, uint32_t

from cext.base.buffer cimport Bytes
from cext.http.message cimport Head, Span

cdef enum:
    ADDED_MAX = 65536                   # bytes that changes may add to a head

cdef class HeadCopy:
    cdef Head *head                     # `fields` has room for `room` of them
    cdef uint32_t room
    cdef Bytes text                     # what its spans point into
    cdef size_t added
    cdef int copy(self, const Head *h) noexcept
    # 0, or -1 when out of memory. Once, before all else.
    cdef int write(self, const uint8_t *p, size_t n, Span *where) noexcept
    # New text. 0; -1: more than ADDED_MAX in all, or out of memory.
    cdef int add(self, const uint8_t *name, size_t n, const uint8_t *value, size_t m, int field) noexcept
    # A field behind all others; `field` is its FieldId. 0; -1 as above, or there are MAX_FIELDS.
    cdef uint32_t remove(self, const uint8_t *name, size_t n) noexcept
    # All fields of that name, with "_" for "-" too: what reads names through CGI variables cannot tell them apart. How
    # many there were.
    cdef void look_at_own(self) noexcept
