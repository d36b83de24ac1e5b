"""The fields of a head, as hooks read and change them."""

from libc.stdint cimport uint8_t

from cext.http.head_copy cimport HeadCopy
from cext.http.message cimport Head
from cext.proxy.exchange cimport Overseer

cdef class HeadView(Overseer):
    """What has a head: a request, or a response. While `head` stands, a hook may look at it and change it."""
    cdef const Head *head               # whoever's memory it is, or `own`'s; NULL: the hook's time is over
    cdef HeadCopy own                   # None: nobody needed one so far
    cdef bint changed                   # `own` is no longer what came
    cdef bint of_request
    cdef bint forwards                  # X-Forwarded-* are written by us,
    cdef bint forwards_standard         # and so is Forwarded
    cdef int keep(self) noexcept
    # From now on the head is `own`. 0, or -1 when out of memory.
    cdef HeadCopy change(self)
    # `own`, to be changed. RequestOver when the hook's time is over.
    cdef void end(self) noexcept
    # The hook's time is over.
    cdef const Head *shown(self) except NULL
    # What Headers show.

cdef class Headers:
    cdef HeadView view
    cdef list values_of(self, name)

cdef str latin1(const void *p, size_t n)

cdef bytes field_name(name, bint of_request, int *field)
cdef bytes field_value(bytes name, value)
# What a hook writes, as a head may have it. ValueError or TypeError.
