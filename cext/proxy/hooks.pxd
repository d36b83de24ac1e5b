"""Hooks: where a policy written in Python sees a request or a connection and decides. docs/hooks.md is the contract."""

from cext.http.h1_writer cimport RequestText
from cext.http.message cimport Head
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange

cdef class Hooks:
    """A policy's hooks, as the data plane calls them; None for each that it does not have."""
    cdef readonly object director           # (request)
    cdef readonly object connection_state   # (connection, old, new)
    cdef readonly object handshake          # HandshakeHooks, or None
    cdef dict limits                        # a timeout's name -> its place in Timeouts
    cdef object read_limit                  # (name, value) -> ms or bytes per second, 0 for none
    cdef object show_limit                  # (name, ms or bytes per second) -> value
    cdef object failed                      # (hook, exception): tells the operator
    cdef readonly dict connections          # Downstream -> ClientConnection, of those that connection_state knows
    cdef void report(self, Context ctx, str hook, object error) noexcept

cdef class Request:
    """What a director sees. It may be kept; the head is gone when the director returns."""
    cdef Hooks hooks
    cdef Exchange x
    cdef Downstream client
    cdef const Head *head                   # NULL but while the director runs
    cdef bint http2
    cdef int minor
    cdef bint aborted                       # by the director, which has not returned yet
    cdef bint retimed                       # likewise: limits have changed
    cdef Exchange running(self)
    cdef RequestText text(self) noexcept

cdef bint direct(Downstream client, Exchange x, const Head *h) noexcept
# Asks the director, while h is valid -> whether the exchange is to start; otherwise it is over.
