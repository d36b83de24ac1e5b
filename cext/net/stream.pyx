"""Sockets in the loop (see the .pxd)."""

from libc.errno cimport EAGAIN, EINTR, errno

from cext.base.buffer cimport Chunk, chunk_release, queue_clear, queue_pop
from cext.lib.linux cimport (
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    MSG_NOSIGNAL,
    close,
    iovec,
    msghdr,
    recv,
    sendmsg,
)

cdef enum:
    IOV_PER_SEND = 64


cdef class Stream(Watcher):
    def __dealloc__(self):
        queue_clear(&self.out)
        if self.fd >= 0:
            close(self.fd)

    cdef int attach(self) noexcept:
        """Watches the descriptor: registered once, for both directions. 0 or -1."""
        return self.loop.register(self, EPOLLIN | EPOLLOUT | EPOLLRDHUP | <uint32_t> EPOLLET)

    cdef void note_events(self, uint32_t events) noexcept nogil:
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.hangup = True
            self.readable = True
        if events & EPOLLIN:
            self.readable = True
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            self.writable = True

    cdef ssize_t receive_into(self, uint8_t *p, size_t n) noexcept nogil:
        """Bytes read (0: the peer's end), IO_AGAIN or IO_ERROR. A short read means the socket is empty, and an
        edge will announce more, unless the peer's end was announced already."""
        cdef ssize_t got
        while True:
            got = recv(self.fd, p, n, 0)
            if got >= 0 or errno != EINTR:
                break
        if got < 0:
            self.readable = False
            if errno == EAGAIN:
                return IO_AGAIN
            self.error = errno
            return IO_ERROR
        if <size_t> got < n and not self.hangup:
            self.readable = False
        return got

    cdef int send_queue(self) noexcept nogil:
        """Sends what the socket takes of `out`. 0: all of it went; IO_AGAIN; IO_ERROR."""
        cdef iovec iov[IOV_PER_SEND]
        cdef msghdr m
        cdef Chunk *c
        cdef int n
        cdef size_t total
        cdef ssize_t sent
        cdef uint32_t part
        m.msg_name = NULL
        m.msg_namelen = 0
        m.msg_control = NULL
        m.msg_controllen = 0
        m.msg_flags = 0
        while self.out.head != NULL:
            if not self.writable:
                return IO_AGAIN
            n = 0
            total = 0
            c = self.out.head
            while c != NULL and n < IOV_PER_SEND:
                iov[n].iov_base = c.data + c.start
                iov[n].iov_len = c.end - c.start
                total += iov[n].iov_len
                n += 1
                c = c.next
            m.msg_iov = iov
            m.msg_iovlen = n
            sent = sendmsg(self.fd, &m, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                self.writable = False
                if errno == EAGAIN:
                    return IO_AGAIN
                self.error = errno
                return IO_ERROR
            if <size_t> sent < total:
                self.writable = False
            while sent > 0:
                c = self.out.head
                part = c.end - c.start
                if <size_t> sent < part:
                    c.start += <uint32_t> sent
                    self.out.bytes -= sent
                    break
                sent -= part
                chunk_release(queue_pop(&self.out))
        return 0

    cdef void close_stream(self) noexcept:
        """Unregisters and closes; what was not sent is dropped."""
        if self.fd < 0:
            return
        self.loop.unregister(self)
        close(self.fd)
        self.fd = -1
        queue_clear(&self.out)
