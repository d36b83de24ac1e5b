"""A listening socket in the loop."""

from libc.stdint cimport uint64_t

from cext.base.timers cimport Timer
from cext.net.address cimport Peer
from cext.net.loop cimport Watcher

cdef class Listener(Watcher):
    cdef Timer resume               # armed while accepting is paused, mostly for want of descriptors
    cdef uint64_t starved_until     # loop ms: a pause before then belongs to a spell that was told
    cdef int start(self) noexcept
    cdef int accept_some(self, int limit) noexcept
    cdef void stop(self) noexcept
    cdef void on_accept(self, int fd, const Peer *peer) noexcept
    cdef bint make_room(self, int error) noexcept
    cdef void on_starved(self, int error) noexcept
    cdef void pause(self, int error) noexcept
