"""Accepting (see the .pxd). Level-triggered: what one turn leaves in the queue, the next turn hears of again."""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EPROTO, errno
from libc.stdint cimport uint32_t

from cext.base.timers cimport timer_init
from cext.lib.linux cimport EPOLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, sockaddr, sockaddr_storage, socklen_t
from cext.net.address cimport peer_set

cdef enum:
    ACCEPTS_PER_TURN = 4            # then those already accepted get their turn: each of these costs a handshake
    STARVED_PAUSE_MS = 200
    SPELL_GAP_MS = 1000


cdef class Listener(Watcher):
    """Accepts from a descriptor that somebody else owns and closes."""

    def __cinit__(self):
        timer_init(&self.resume, self, 0)

    cdef int start(self) noexcept:
        return self.loop.register(self, EPOLLIN)

    cdef void stop(self) noexcept:
        """No further accept; connections in the queue stay there, for whoever else holds the socket."""
        self.loop.timers.disarm(&self.resume)
        self.loop.unregister(self)

    cdef void on_accept(self, int fd, const Peer *peer) noexcept:
        """A connection has come; fd is the callee's to close."""

    cdef bint make_room(self, int error) noexcept:
        """Nothing can be accepted (errno `error`): whether something was closed, so that it may go better now."""
        return False

    cdef void on_starved(self, int error) noexcept:
        """Nothing can be accepted (errno `error`: mostly, descriptors have run out); called once for each such spell."""

    cdef void on_event(self, uint32_t events) noexcept:
        self.accept_some(ACCEPTS_PER_TURN)

    cdef int accept_some(self, int limit) noexcept:
        """Accepts up to `limit` connections of the queue -> how many."""
        cdef int fd
        cdef int accepted = 0
        cdef int error
        cdef sockaddr_storage address
        cdef Peer peer
        cdef socklen_t n
        while accepted < limit:
            n = sizeof(address)
            fd = accept4(self.fd, <sockaddr *> &address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                accepted += 1
                peer_set(&peer, &address)
                self.on_accept(fd, &peer)
                continue
            if errno == EINTR or errno == ECONNABORTED or errno == EPROTO:
                continue            # that connection is gone; the next may be there
            error = errno
            if error != EAGAIN and self.make_room(error):
                continue
            if error != EAGAIN:     # no descriptors, no memory, no permission, no longer listening
                self.pause(error)
            break
        return accepted

    cdef void pause(self, int error) noexcept:
        """Not watched for a while: an event that cannot be answered would spin the loop."""
        self.loop.unregister(self)
        self.loop.timers.arm(&self.resume, self.loop.now + STARVED_PAUSE_MS)
        # Under load a descriptor comes free and is gone again many times a second: one spell, told once.
        if self.starved_until <= self.loop.now:
            self.on_starved(error)
        self.starved_until = self.loop.now + SPELL_GAP_MS

    cdef void on_timer(self, int kind) noexcept:
        if self.start() < 0:
            self.loop.timers.arm(&self.resume, self.loop.now + STARVED_PAUSE_MS)
