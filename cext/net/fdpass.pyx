"""Passing descriptors (see the .pxd)."""

import os

from libc.errno cimport EAGAIN, EINTR, ETOOMANYREFS, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from cext.lib.linux cimport (
    AF_UNIX,
    CMSG_DATA,
    CMSG_FIRSTHDR,
    CMSG_LEN,
    CMSG_NXTHDR,
    EPOLLET,
    EPOLLIN,
    EPOLLOUT,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SHUT_RD,
    SIOCOUTQ,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    close,
    cmsghdr,
    connect,
    getsockopt,
    ioctl,
    msghdr,
    recvmsg,
    sendmsg,
    shutdown,
    sockaddr,
    socket,
    socklen_t,
    ucred,
)

cdef enum:
    CONTROL = 16                # words: room for more descriptors than the one, so that those are seen, and closed


cdef int fd_send(int sock, iovec *parts, int n, int fd) noexcept nogil:
    cdef size_t[CONTROL] control      # aligned as a cmsghdr
    cdef msghdr m
    cdef cmsghdr *c
    memset(&m, 0, sizeof(m))
    memset(control, 0, sizeof(control))
    m.msg_iov = parts
    m.msg_iovlen = n
    m.msg_control = control
    m.msg_controllen = sizeof(control)
    c = CMSG_FIRSTHDR(&m)
    c.cmsg_level = SOL_SOCKET
    c.cmsg_type = SCM_RIGHTS
    c.cmsg_len = CMSG_LEN(sizeof(int))
    memcpy(CMSG_DATA(c), &fd, sizeof(int))
    m.msg_controllen = c.cmsg_len
    while sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0:
        if errno == EINTR:
            continue
        # Too many descriptors of this user are on their way: they will arrive.
        return FD_AGAIN if errno == EAGAIN or errno == ETOOMANYREFS else FD_ERROR
    return FD_SENT


cdef ssize_t fd_receive(int sock, uint8_t *p, size_t room, int *fd) noexcept nogil:
    cdef size_t[CONTROL] control
    cdef msghdr m
    cdef iovec part
    cdef ssize_t got
    fd[0] = -1
    part.iov_base = p
    part.iov_len = room
    memset(&m, 0, sizeof(m))
    m.msg_iov = &part
    m.msg_iovlen = 1
    m.msg_control = control
    m.msg_controllen = sizeof(control)
    while True:
        got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
        if got >= 0:
            break
        if errno != EINTR:
            return FD_AGAIN if errno == EAGAIN else FD_ERROR
    if take_descriptors(&m, fd) == 1 and got and not m.msg_flags & (MSG_TRUNC | MSG_CTRUNC):
        return got
    if got == 0 and fd[0] < 0 and not m.msg_flags & (MSG_TRUNC | MSG_CTRUNC):
        return 0                # an empty message cannot be told from the end, and is no message either
    if fd[0] >= 0:
        close(fd[0])
        fd[0] = -1
    return FD_BROKEN


cdef int take_descriptors(msghdr *m, int *fd) noexcept nogil:
    """How many came; the first is kept, the others are closed."""
    cdef cmsghdr *c = CMSG_FIRSTHDR(m)
    cdef int found = 0
    cdef int one
    cdef size_t i, n
    while c != NULL:
        if c.cmsg_level == SOL_SOCKET and c.cmsg_type == SCM_RIGHTS:
            n = (c.cmsg_len - CMSG_LEN(0)) // sizeof(int)
            for i in range(n):
                memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int))
                found += 1
                if found == 1:
                    fd[0] = one
                else:
                    close(one)
        c = CMSG_NXTHDR(m, c)
    return found


cdef class Passage(Watcher):
    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    cdef int connect_to(self, const Address *a) noexcept:
        """To who listens at a Unix socket: 0, or -1 with `error`. It is there at once, or not to be had."""
        self.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd >= 0 and connect(self.fd, <const sockaddr *> &a.storage, a.length) == 0:
            return 0
        self.error = errno
        self.close_passage()
        return -1

    cdef int send(self, const uint8_t *head, size_t head_len, const uint8_t *data, size_t data_len, int fd) noexcept:
        """Head and data as one message, as fd_send."""
        cdef iovec[2] parts
        cdef int sent
        parts[0].iov_base = <void *> head
        parts[0].iov_len = head_len
        parts[1].iov_base = <void *> data
        parts[1].iov_len = data_len
        sent = fd_send(self.fd, parts, 2, fd)
        if sent == FD_ERROR:
            self.error = errno
        return sent

    cdef bint all_read(self) noexcept nogil:
        """Whether the other end has read every message."""
        cdef int unread = 0
        return ioctl(self.fd, SIOCOUTQ, &unread) == 0 and unread == 0

    cdef int user(self) noexcept nogil:
        """The user id of who connected (SO_PEERCRED), or -1."""
        cdef ucred who
        cdef socklen_t n = sizeof(ucred)
        return <int> who.uid if getsockopt(self.fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 else -1

    cdef int watch_room(self) noexcept:
        """Edge-triggered: room that does not help, since the kernel has too many descriptors on their way, must not spin."""
        return self.loop.register(self, EPOLLOUT | <uint32_t> EPOLLET)

    cdef int watch_messages(self) noexcept:
        return self.loop.register(self, EPOLLIN)

    cdef void take_no_more(self) noexcept nogil:
        """The other end cannot send any more; what it has sent can still be read."""
        shutdown(self.fd, SHUT_RD)

    cdef void close_passage(self) noexcept:
        """What the other end has not read yet stays there for it."""
        if self.fd < 0:
            return
        self.loop.forget(self)
        close(self.fd)
        self.fd = -1


# For tests and tools.


def send(int sock, bytes message, int fd):
    """True, or False when the receiver has no room now. OSError when it has gone."""
    cdef iovec part
    part.iov_base = <char *> message
    part.iov_len = len(message)
    cdef int sent = fd_send(sock, &part, 1, fd)
    if sent == FD_ERROR:
        raise OSError(errno, os.strerror(errno))
    return sent == FD_SENT


def receive(int sock, size_t room=4096):
    """(message, descriptor); None when nothing is there, (b"", -1) at the end. ValueError for what is no message."""
    cdef bytearray memory = bytearray(room)
    cdef int fd = -1
    cdef ssize_t got = fd_receive(sock, <uint8_t *> <char *> memory, room, &fd)
    if got == FD_AGAIN:
        return None
    if got == FD_ERROR:
        raise OSError(errno, os.strerror(errno))
    if got == FD_BROKEN:
        raise ValueError("cut off, or without exactly one descriptor")
    return bytes(memory[:got]), fd
