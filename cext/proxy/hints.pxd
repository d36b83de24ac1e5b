"""Early Hints (103, RFC 8297) of our own: links that were configured, and those that earlier responses came with."""

from libc.stdint cimport uint64_t

from cext.http.h1_writer cimport RequestText
from cext.http.message cimport Head

cdef class HintTable:
    """What the routes of a configuration have learned; the least used is forgotten first."""
    cdef object entries                 # OrderedDict: host and path -> (head of a 103, ms until which it holds)
    cdef readonly Py_ssize_t size

cdef class EarlyHints:
    """A route's."""
    cdef readonly bint http1            # clients of HTTP/1.1 get them too
    cdef readonly tuple links           # configured link-values
    cdef bytes head                     # a 103 with these alone; None without any
    cdef HintTable table                # None: nothing is learned
    cdef readonly uint64_t remember_ms
    cdef bytes find(self, const Head *request, bint http2, uint64_t now)
    # The text of the 103 that a request is answered with first, None for none. While `request` is valid.
    cdef void learn(self, const RequestText *request, const Head *response, uint64_t now) noexcept
    # Looks at the final head that answers a GET.
    cdef list new_links(self, const Head *response)

cdef const Head *parse_interim(bytes text) noexcept
# The text's head, valid until the next call.

cdef const Head *without_known(const Head *interim, bytes sent) noexcept
# An upstream's 103 without the links that were `sent` before: itself when it has none of them, NULL when nothing is left.
