"""A connected non-blocking socket in the loop, edge-triggered: what is ready is remembered until it is used up."""

from libc.stdint cimport uint8_t, uint32_t

from cext.base.buffer cimport ChunkQueue
from cext.net.loop cimport Loop, Watcher

cdef enum:
    IO_AGAIN = -1           # nothing now; an event will tell
    IO_ERROR = -2           # the connection is broken; `error` holds errno

cdef class Stream(Watcher):
    cdef bint readable      # recv may find something
    cdef bint writable      # send may take something
    cdef bint hangup        # the peer has ended (or broken) the connection: read until its end shows
    cdef int error
    cdef ChunkQueue out     # to be sent, in order
    cdef int attach(self) noexcept
    cdef void note_events(self, uint32_t events) noexcept nogil
    cdef ssize_t receive_into(self, uint8_t *p, size_t n) noexcept nogil
    cdef int send_queue(self) noexcept nogil
    cdef void close_stream(self) noexcept
