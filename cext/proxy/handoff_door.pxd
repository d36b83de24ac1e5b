"""The door for connections that other processes hand over (docs/handoff.md)."""

from libc.stdint cimport uint8_t

from cext.net.address cimport Peer
from cext.net.fdpass cimport Passage
from cext.net.handoff cimport Handoff
from cext.proxy.frontend cimport Frontend

cdef class Senders:
    """Who may hand connections over."""
    cdef frozenset uids

cdef class HandoffDoor(Frontend):
    cdef uint8_t *message               # HANDOFF_MAX bytes: the message being read
    cdef set sources
    cdef void turn_away(self, str why) noexcept
    cdef void read_message(self, ssize_t got, int fd) noexcept
    cdef void serve_handoff(self, int fd, const Handoff *h, const Peer *peer) noexcept

cdef class HandoffSource(Passage):
    """A sender's connection."""
    cdef HandoffDoor door
    cdef int read_some(self, int most) noexcept
    cdef void end(self) noexcept
