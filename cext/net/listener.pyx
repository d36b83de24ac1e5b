"""Accepting (see the .pxd). Level-triggered: what one turn leaves in the queue, the next turn hears of again."""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, errno
from libc.stdint cimport uint32_t

from cext.base.timers cimport timer_init
from cext.lib.linux cimport EPOLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, sockaddr, socklen_t

cdef enum:
    ACCEPTS_PER_TURN = 32           # then those already accepted get their turn
    STARVED_PAUSE_MS = 200


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

    cdef void on_accept(self, int fd, sockaddr_storage *peer) noexcept:
        """A connection has come; fd is the callee's to close."""

    cdef void on_starved(self, int error) noexcept:
        """Descriptors or memory have run out (errno `error`); called once for each such spell."""

    cdef void on_event(self, uint32_t events) noexcept:
        cdef int fd, i
        cdef sockaddr_storage peer
        cdef socklen_t n
        for i in range(ACCEPTS_PER_TURN):
            n = sizeof(peer)
            fd = accept4(self.fd, <sockaddr *> &peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.starved = False
                self.on_accept(fd, &peer)
                if not self.registered:
                    return
                continue
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                self.pause(errno)
                return
            if errno == EINTR or errno == ECONNABORTED or errno == EPROTO or errno == EPERM:
                continue            # that connection is gone (or filtered); the next may be there
            return                  # EAGAIN, or a socket that is no longer listening

    cdef void pause(self, int error) noexcept:
        """Not watched for a while: an event that cannot be answered would spin the loop."""
        self.loop.unregister(self)
        self.loop.timers.arm(&self.resume, self.loop.now + STARVED_PAUSE_MS)
        if not self.starved:
            self.starved = True
            self.on_starved(error)

    cdef void on_timer(self, int kind) noexcept:
        self.start()
