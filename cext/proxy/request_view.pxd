"""A request, as hooks see and change it."""

from libc.stdint cimport uint8_t, uint32_t

from cext.http.h1_writer cimport RequestText
from cext.http.message cimport Span
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange
from cext.proxy.header_view cimport HeadView
from cext.proxy.hooks cimport Hooks

cdef class Answer:
    """A whole response of a hook's own."""
    cdef bytes head                         # as HTTP/1.1 has it
    cdef bytes body

cdef class RequestView(HeadView):
    """What a director sees. It may be kept; its head can be changed until the director is done."""
    cdef Exchange x                         # the one at work: what a hook changes gets another
    cdef Downstream client
    cdef Hooks hooks                        # whose limits' names are spoken
    cdef bint http2
    cdef bint asking                        # a hook is at it, or waits
    cdef uint8_t minor
    cdef bint aborted                       # by the hook that is at it
    cdef bint retimed                       # likewise: limits have changed,
    cdef uint32_t limits_set                # and which ones, ever: bits by their places in Timeouts
    cdef Answer given                       # by the director; None: none
    cdef dict own_notes
    cdef Exchange running(self)
    cdef RequestText text(self) noexcept
    cdef const uint8_t *asked(self, size_t *n) noexcept
    cdef str part(self, const Span *span)
    cdef void set_target(self, bytes target) except *

cdef int check_status(Exchange x, int status) except -1
cdef Answer make_answer(Exchange x, int status, headers, body)
# ValueError or TypeError for what is no response.
