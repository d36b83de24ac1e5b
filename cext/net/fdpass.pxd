"""One descriptor with one message between two processes: SCM_RIGHTS over a Unix socket (unix(7)).

The sockets are SOCK_SEQPACKET: a message comes whole or not at all, so that a descriptor never parts from its bytes,
and unlike datagrams they tell when the other process has gone.
"""

from libc.stdint cimport uint8_t

from cext.lib.linux cimport iovec
from cext.net.address cimport Address
from cext.net.loop cimport Watcher

cdef enum:                      # beside stream.IO_AGAIN and IO_ERROR, whose values these do not have
    FD_SENT = 0
    FD_AGAIN = -1               # the receiver is slow: an event will tell when there is room
    FD_ERROR = -2               # errno
    FD_BROKEN = -3              # a message came that is none: cut off, or without exactly one descriptor

cdef int fd_send(int sock, iovec *parts, int n, int fd) noexcept nogil
"""The parts as one message, with fd -> FD_SENT, FD_AGAIN, or FD_ERROR. fd stays the caller's, to be closed."""

cdef ssize_t fd_receive(int sock, uint8_t *p, size_t room, int *fd) noexcept nogil
"""One message -> its length, and its descriptor (close-on-exec), which is the caller's; 0 at the sender's end;
FD_AGAIN, FD_ERROR or FD_BROKEN, with every descriptor that came closed and fd -1."""

cdef class Passage(Watcher):
    """An end of such a socket in the loop."""
    cdef int error                      # errno of what failed last
    cdef int connect_to(self, const Address *a) noexcept
    cdef int send(self, const uint8_t *head, size_t head_len, const uint8_t *data, size_t data_len, int fd) noexcept
    cdef bint all_read(self) noexcept nogil
    cdef int user(self) noexcept nogil
    cdef int watch_room(self) noexcept
    cdef int watch_messages(self) noexcept
    cdef void take_no_more(self) noexcept nogil
    cdef void close_passage(self) noexcept
