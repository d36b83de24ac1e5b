"""Giving connections to other processes (docs/handoff.md): the descriptor, and all that has come from the client."""

from libc.stdint cimport uint64_t

from cext.base.timers cimport Timer
from cext.net.address cimport Address
from cext.net.fdpass cimport Passage
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream

cdef class HandoffTarget(Passage):
    """A receiver: the Unix socket where it listens. Made in the master, used by each worker on its own."""
    cdef readonly str name
    cdef bytes wire_name
    cdef Address address
    cdef readonly bint serve_otherwise  # what it does not take is served here; else closed
    cdef Context ctx                    # of the worker, once it was used
    cdef int sent                       # messages on this connection to the receiver
    cdef list waiting                   # Downstreams, the oldest first: the receiver is slow
    cdef int patience_ms                # how long some may wait while the receiver takes none
    cdef Timer patience                 # when what waits has waited long enough
    cdef uint64_t told_at               # loop ms of the last line in the log,
    cdef unsigned int untold            # failures since
    # its own
    cdef int offer(self, Downstream client) noexcept
    cdef int send_client(self, Downstream client) noexcept
    cdef void wait(self, Downstream client) noexcept
    cdef void send_waiting(self) noexcept
    cdef void do_otherwise(self, Downstream client) noexcept
    cdef void fail(self, Downstream client, str why) noexcept

cdef bint hand_over(Downstream client, HandoffTarget target) noexcept
# A connection that nothing was written to, whose opening.raw has all that has come from the client. True: there is nothing
# left to do for the caller; the connection is gone, or waits for the receiver, and if that does not take it either
# opening.stay() is called or the connection closed. False: it is to be served here.
