"""Passing descriptors (see the .pxd)."""

import os

from libc.errno cimport EAGAIN, EINTR, ETOOMANYREFS, errno
from libc.string cimport memcpy, memset

from cext.lib.linux cimport (
    CMSG_DATA,
    CMSG_FIRSTHDR,
    CMSG_LEN,
    CMSG_NXTHDR,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOL_SOCKET,
    close,
    cmsghdr,
    getsockopt,
    msghdr,
    recvmsg,
    sendmsg,
    socklen_t,
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


cdef int peer_credentials(int sock, ucred *who) noexcept nogil:
    cdef socklen_t n = sizeof(ucred)
    return 0 if getsockopt(sock, SOL_SOCKET, SO_PEERCRED, who, &n) == 0 and n == sizeof(ucred) else -1


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
